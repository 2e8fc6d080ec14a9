"""Optimisation: update rules and rate schedules, as mathematics over flat vectors."""

from distbelief.optim.rules import Adagrad, FixedRate, Momentum, Rule, State
from distbelief.optim.schedules import Constant, Cosine, Inverse, Schedule, Step

__all__ = [
    "Adagrad",
    "Constant",
    "Cosine",
    "FixedRate",
    "Inverse",
    "Momentum",
    "Rule",
    "Schedule",
    "State",
    "Step",
]
