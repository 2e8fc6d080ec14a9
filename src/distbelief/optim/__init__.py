"""Optimisation: update rules, as mathematics over flat vectors."""

from distbelief.optim.rules import Adagrad, FixedRate, Rule, State

__all__ = ["Adagrad", "FixedRate", "Rule", "State"]
