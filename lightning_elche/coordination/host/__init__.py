"""How busy a machine is, and how a run gives way on it."""
