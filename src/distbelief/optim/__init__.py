"""Optimisation: update rules and rate schedules, and batch methods, as mathematics over flat vectors."""

from distbelief.optim.conjugate import ConjugateGradients
from distbelief.optim.descent import GradientDescent
from distbelief.optim.lbfgs import LBFGS
from distbelief.optim.line_search import Armijo, LineSearch, StrongWolfe
from distbelief.optim.method import Evaluation, Method, Result, StopRules
from distbelief.optim.rules import Adagrad, FixedRate, Momentum, Rule, State
from distbelief.optim.schedules import Constant, Cosine, Inverse, Schedule, Step, Trapezoid
from distbelief.optim.space import Space
from distbelief.optim.vectors import Vectors

BatchMethod = LBFGS | ConjugateGradients | GradientDescent

__all__ = [
    "Adagrad",
    "Armijo",
    "BatchMethod",
    "ConjugateGradients",
    "Constant",
    "Cosine",
    "Evaluation",
    "FixedRate",
    "GradientDescent",
    "Inverse",
    "LBFGS",
    "LineSearch",
    "Method",
    "Momentum",
    "Result",
    "Rule",
    "Schedule",
    "Space",
    "State",
    "Step",
    "StopRules",
    "StrongWolfe",
    "Trapezoid",
    "Vectors",
]
