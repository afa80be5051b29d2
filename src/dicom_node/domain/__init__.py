"""The words of the node: values that every room may speak, and that depend on nothing."""
