"""Suites of levels: names, human and random scores, normalised scores."""

from scalable_agent.suites import atari57, dmlab30

__all__ = ('atari57', 'dmlab30')
