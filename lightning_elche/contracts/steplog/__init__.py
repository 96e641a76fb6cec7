"""Step logs: read fast, in constant memory, whatever is in them."""
