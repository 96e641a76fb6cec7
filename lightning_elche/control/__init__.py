"""The pure core: every decision that ranks must agree on, as functions of numbers.

Nothing here reads a clock, draws a random number, talks to a peer or imports anything but the
standard library. A simulation, the tests and the strategy drive the same objects.
"""
