"""Tensor operations within one process."""
