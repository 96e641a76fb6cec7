"""Which tasks may start, for all processes of a host or of several."""
