"""Wiring: lifetimes, and who talks to whom. No maths."""
