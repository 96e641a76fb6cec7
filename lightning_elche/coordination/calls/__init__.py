"""Calls with a deadline, and messages to the outside world, that never hold up training."""
