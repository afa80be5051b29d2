"""The shell: where time, randomness, processes and threads enter, a module for each stage."""
