"""The judgments: pure functions of values. No clock, no files, no randomness."""
