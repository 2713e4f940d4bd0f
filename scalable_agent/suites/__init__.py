"""Suites of levels: names, human and random scores, normalised scores."""
