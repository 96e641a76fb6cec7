"""Evidence that contradicts itself."""
