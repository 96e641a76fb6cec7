"""How a run is stopped, paused and asked for checkpoints."""
