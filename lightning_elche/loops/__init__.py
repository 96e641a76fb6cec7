"""Loops that follow averaging events instead of single steps."""
