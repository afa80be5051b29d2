"""The audit trail of PS3.15 §A.5: its messages, their spool, and where they go."""
