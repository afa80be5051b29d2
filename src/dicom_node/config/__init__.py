"""The operator's file: read once, checked whole, handed on as one frozen value."""
