"""Update rules: what one gradient does to an interval of parameters. Mathematics only, no I/O.

A rule is a small frozen description, as it stands in a configuration; `state(size, dtype)` gives what a shard
keeps to apply it. To add one: a description with a tag of its own, a state with `apply`, a name in `Rule`.
"""

from typing import Annotated, Protocol

import msgspec
import numpy as np

from distbelief.kernels import adagrad, momentum, sgd

Rate = Annotated[float, msgspec.Meta(gt=0)]


class State(Protocol):
    """What a rule needs of an interval from one update to the next."""

    traffic: int
    """Vectors of the interval's size that one update reads or writes, for accounts of memory traffic."""

    def apply(
        self, parameters: np.ndarray, gradient: np.ndarray, factor: float = 1.0, shadow: np.ndarray | None = None
    ) -> None:
        """Update `parameters` in place by `gradient`, with `factor` times the rule's rate. Local.

        All of shape (size,). `gradient`: of the parameters' dtype, or bfloat16 as uint16. `shadow` (uint16), if
        given, is overwritten with the updated parameters in bfloat16.
        """
        ...

    def part(self, start: int, stop: int) -> "State":
        """The state of elements start..stop-1: no copy, what it applies changes this one. Local."""
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


class Momentum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="momentum"):
    """velocity = decay velocity + gradient; parameters -= rate velocity (Polyak 1964).

    Unsafe under staleness: late gradients act like momentum of their own (Mitliagkas et al. 2016), and the two
    together overshoot. With many replicas use a small decay, or Adagrad.
    """

    rate: Rate
    decay: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9

    def state(self, size: int, dtype: np.dtype) -> State:
        return _MomentumState(self.rate, self.decay, np.zeros(size, dtype))


Rule = FixedRate | Adagrad | Momentum


class _FixedRateState:
    traffic = 3

    def __init__(self, rate: float):
        self._rate = rate

    def apply(self, parameters, gradient, factor=1.0, shadow=None) -> None:
        sgd(parameters, gradient, self._rate * factor, shadow)

    def part(self, start: int, stop: int) -> State:
        return self


class _AdagradState:
    traffic = 5

    def __init__(self, rate: float, squares: np.ndarray):
        self._rate = rate
        self.squares = squares

    def apply(self, parameters, gradient, factor=1.0, shadow=None) -> None:
        adagrad(parameters, gradient, self.squares, self._rate * factor, shadow)

    def part(self, start: int, stop: int) -> State:
        return _AdagradState(self._rate, self.squares[start:stop])


class _MomentumState:
    traffic = 5

    def __init__(self, rate: float, decay: float, velocity: np.ndarray):
        self._rate = rate
        self._decay = decay
        self.velocity = velocity

    def apply(self, parameters, gradient, factor=1.0, shadow=None) -> None:
        momentum(parameters, gradient, self.velocity, self._rate * factor, self._decay, shadow)

    def part(self, start: int, stop: int) -> State:
        return _MomentumState(self._rate, self._decay, self.velocity[start:stop])
