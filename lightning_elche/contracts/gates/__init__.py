"""The gates: pure functions of what a run has recorded."""
