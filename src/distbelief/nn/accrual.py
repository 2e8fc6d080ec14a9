"""Gradients that accrue: what becomes of a minibatch's, while the network still computes the layers below."""

from collections.abc import Iterable
from typing import NamedTuple

from distbelief.kernels import accrue, add, all_finite, sgd
from distbelief.nn.arena import Arena


class Accrual(NamedTuple):
    """What becomes of a gradient g: accrued += weight g, and parameters -= rate g."""

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
            values, accrued, g = (arena[name].reshape(-1) for arena in (parameters, self.accrued, gradient))
            found = finite
            if self.fresh:
                found = found or all_finite(g)
                if self.rate:
                    sgd(values, g, self.rate)
                if self.weight != 1:
                    accrued *= self.weight
            elif self.weight != 1:
                sgd(accrued, g, -self.weight)
            else:
                found = accrue(values, accrued, g, self.rate) if self.rate else add(accrued, g)
            certain = certain and found
        return certain
