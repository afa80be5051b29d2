"""The door: one file for each family of commands."""
