"""How long runs take, and when they must be over."""
