"""Runs judged by their files."""
