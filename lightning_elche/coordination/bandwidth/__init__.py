"""How much of a link a transfer may use."""
