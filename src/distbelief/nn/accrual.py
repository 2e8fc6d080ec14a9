"""Gradients that accrue: what becomes of a minibatch's, while the network still computes the layers below."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from distbelief.kernels import accrue, add, all_finite, narrow, sgd, widen
from distbelief.nn.arena import Arena

# Numbers that passes go over at a time, so that one finds in the cache what the one before has left there.
BLOCK = 1 << 19


class Accrual(NamedTuple):
    """What becomes of a gradient g: accrued += weight g, and parameters -= rate g.

    Parameters may be held in bfloat16 (uint16).
    """

    accrued: Arena
    fresh: bool
    """Whether nothing has accrued yet: accrued = weight g."""
    weight: float = 1.0
    rate: float = 0.0
    """Of the step. Not with another weight than 1."""

    def take_in(self, names: Iterable[str], parameters: Arena, gradient: Arena, finite: bool) -> bool:
        """Take in the gradients by some tensors, which are in `gradient`; of fresh ones that is `accrued`. Local.

        `finite`: whether they are for certain. Returns that, or what a pass that looks at them anyway has found.
        """
        certain = True
        for name in names:
            whole = [arena[name].reshape(-1) for arena in (parameters, self.accrued, gradient)]
            for start in range(0, whole[0].size, BLOCK):
                found = self._take_in(*(array[start : start + BLOCK] for array in whole), finite)
                certain = certain and found
        return certain

    def _take_in(self, parameters: np.ndarray, accrued: np.ndarray, g: np.ndarray, finite: bool) -> bool:
        if not self.fresh and self.weight == 1:
            return accrue_and_step(parameters, accrued, g, self.rate)
        if self.fresh:
            finite = finite or all_finite(g)
            if self.rate:
                _step(parameters, lambda values: sgd(values, g, self.rate))
            if self.weight != 1:
                accrued *= self.weight
        else:
            sgd(accrued, g, -self.weight)
        return finite


def accrue_and_step(parameters: np.ndarray, accrued: np.ndarray, gradient: np.ndarray, rate: float) -> bool:
    """accrued += gradient and, unless the rate is 0, parameters -= rate gradient. Local.

    Returns whether every sum is finite, as none is where the gradient is not. Shapes [size]; parameters may be held in
    bfloat16 (uint16).
    """
    if not rate:
        return add(accrued, gradient)
    return _step(parameters, lambda values: accrue(values, accrued, gradient, rate))


def _step(parameters: np.ndarray, step: Callable[[np.ndarray], object]):
    """What `step` makes of the parameters, and says; those held in bfloat16 step in float32, and are rounded again."""
    if parameters.dtype != np.uint16:
        return step(parameters)
    values = np.empty(parameters.size, np.float32)
    widen(parameters, values)
    said = step(values)
    narrow(values, parameters)
    return said
