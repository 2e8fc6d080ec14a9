"""Update rules: what one gradient does to an interval of parameters. Mathematics only, no I/O.

A rule is a small frozen description, as it stands in a configuration; `state(size, dtype)` gives what a shard
keeps to apply it. To add one: a description with a tag of its own, a state with `apply`, a name in `Rule`.
"""

from typing import Annotated, Protocol

import msgspec
import numpy as np

from distbelief.kernels import adagrad, sgd

Rate = Annotated[float, msgspec.Meta(gt=0)]


class State(Protocol):
    traffic: int
    """Vectors of the interval's size that one update reads or writes, for accounts of memory traffic."""

    def apply(self, parameters: np.ndarray, gradient: np.ndarray) -> None:
        """Update `parameters` in place by `gradient`, both of shape (size,). Local."""
        ...


class FixedRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="fixed"):
    """parameters -= rate gradient."""

    rate: Rate

    def state(self, size: int, dtype: np.dtype) -> State:
        return _FixedRateState(self.rate)


class Adagrad(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="adagrad"):
    """parameters_i -= rate / sqrt(sum of all squared gradients_i so far, this one included) gradient_i.

    Dean et al. 2012, section 4.1, after Duchi et al. 2011. The sums never leave the shard.
    """

    rate: Rate

    def state(self, size: int, dtype: np.dtype) -> State:
        return _AdagradState(self.rate, np.zeros(size, dtype))


Rule = FixedRate | Adagrad


class _FixedRateState:
    traffic = 3

    def __init__(self, rate: float):
        self._rate = rate

    def apply(self, parameters: np.ndarray, gradient: np.ndarray) -> None:
        sgd(parameters, gradient, self._rate)


class _AdagradState:
    traffic = 5

    def __init__(self, rate: float, squares: np.ndarray):
        self._rate = rate
        self.squares = squares

    def apply(self, parameters: np.ndarray, gradient: np.ndarray) -> None:
        adagrad(parameters, gradient, self.squares, self._rate)
