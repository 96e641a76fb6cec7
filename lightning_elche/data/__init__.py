"""Samplers that deal the batches of an epoch to ranks of different speed."""
