"""Contracts as text: read with places, checked, compared."""
