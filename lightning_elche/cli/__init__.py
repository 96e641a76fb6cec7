"""The console script `elche`; it starts without torch."""
