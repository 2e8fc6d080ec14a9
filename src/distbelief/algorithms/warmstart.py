"""Warmstart: replica 0 trains alone at first, then the others are let loose (Dean et al. 2012, section 4.1)."""

from distbelief.algorithms.settings import Downpour


def starts(settings: Downpour, replicas: int) -> list[int]:
    """The steps of replica 0 after which each replica starts: its own, 0; the others', evenly over the ramp."""
    others = range(1, replicas)
    return [0, *(settings.warmstart + settings.ramp * replica // (replicas - 1) for replica in others)]


def clocks(settings: Downpour, replicas: int) -> list[int]:
    """The clock with which each replica starts, if all count steps from the end of replica 0's time alone.

    A replica that starts later starts with the clock that replica 0 has by then: it is not behind.
    """
    return [max(start - settings.warmstart, 0) for start in starts(settings, replicas)]
