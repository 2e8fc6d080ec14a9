"""A space of named vectors, and the commands that batch methods work on them with.

A method (L-BFGS, conjugate gradients) never sees a number of a vector. It sends commands, several at once, to where
the vectors lie, one NumPy process or many shards, and gets the dot products back (Dean et al. 2012, section 4.2:
the coordinator "issues commands drawn from a small set of operations").
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

PARAMETERS = "parameters"
"""The vector where the objective is evaluated: the one that replicas fetch. It is never swapped."""
GRADIENT = "gradient"
"""The vector where an evaluation leaves the gradient; it is swapped: look it up by its name each time."""
ORIGIN = "origin"
"""The last accepted point, where a line search begins."""
PREVIOUS = "previous"
"""The gradient there."""
DIRECTION = "direction"


class Dots(NamedTuple):
    """A block of dot products, in float64 whatever the vectors' dtype: the one command with an answer.

    Answer: shape (rows, columns), `answer[i, j] = rows[i] . columns[j]`. A name may stand in both.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]


class Combine(NamedTuple):
    """target = sum of coefficients[i] vectors[i]; the target may be among the vectors. No vectors: zero."""

    target: str
    coefficients: tuple[float, ...]
    vectors: tuple[str, ...]


class Multiply(NamedTuple):
    """target = left right, element by element; the target may be one of the two."""

    target: str
    left: str
    right: str


class Fill(NamedTuple):
    """Every element of target = value."""

    target: str
    value: float


class Swap(NamedTuple):
    """The two names exchange the vectors that they stand for; nothing is moved. Not for PARAMETERS."""

    one: str
    other: str


Command = Dots | Combine | Multiply | Fill | Swap


def copy(target: str, source: str) -> Combine:
    """target = source."""
    return Combine(target, (1.0,), (source,))


def scale(target: str, factor: float) -> Combine:
    """target = factor target."""
    return Combine(target, (factor,), (target,))


def axpy(target: str, factor: float, source: str) -> Combine:
    """target = target + factor source."""
    return Combine(target, (1.0, factor), (target, source))


class Space(Protocol):
    """Named vectors of one size and dtype, wherever they lie. The names are fixed at the start (`Method.vectors`)."""

    def run(self, commands: Sequence[Command]) -> list[np.ndarray]:
        """Carry out `commands` in order: one round trip to where the vectors lie, blocking.

        Returns the answers of the Dots among them, in order, each of shape (rows, columns) in float64.
        """
        ...


Evaluate = Callable[[], float]
"""Evaluates the objective at PARAMETERS: returns the loss, leaves the gradient in GRADIENT. Blocking."""

Advance = Callable[[], bool]
"""Told after each accepted step: says whether the batch changes now, that is, whether from the next evaluation on the
objective is another one. The method then evaluates once more at the same point (see `optim.method`)."""
