"""Pooling over windows of each map."""

import copy
from collections.abc import Sequence
from typing import Self

from distbelief.errors import UserError
from distbelief.kernels import POOLINGS, pool_backward, pool_forward
from distbelief.nn.layers.checks import named
from distbelief.nn.layers.layer import Shape
from distbelief.nn.layers.window import Window


class Pool:
    """y [oh, ow, C, n] of x [H, W, C, n]: a function of every window of every map, oh = (H - kh) // stride + 1.

    l2: sqrt of the sum of squares (Le et al. 2012), its gradient defined as 0 where it is 0; max: the gradient goes
    to the first of equals; average. Windows may overlap.
    """

    weights: tuple[str, ...] = ()
    tied = False
    needs_output = True
    keeps_scratch = False

    def __init__(
        self,
        name: str,
        below: Shape,
        window: int | Sequence[int],
        stride: int | None = None,
        function: str = "l2",
    ):
        """`stride`: that of a square window is its size, unless given. Raises UserError for what does not fit."""
        self.name = name
        if stride is None and not isinstance(window, int):
            raise UserError(f"a window of {list(window)} needs a stride")
        self.window = Window.of(window, window if stride is None else stride)
        self.below = tuple(below)
        self.shape = (*self.window.places(self.below), below[2])
        self.function = function
        self._function = named("function", function, POOLINGS)

    @property
    def shapes(self) -> dict[str, Shape]:
        return {}

    def spread(self, name: str) -> float:
        raise KeyError(name)

    def forward(self, parameters, x, y, scratch) -> None:
        pool_forward(x, *self.window, self._function, y)

    def backward(self, parameters, x, y, dy, gradient, dx, scratch) -> None:
        pool_backward(x, y, *self.window, self._function, dy, dx)

    def bounded(self, x, y, dy) -> bool:
        return True  # there are none

    def scratch(self, n: int) -> int:
        return 0

    def flops(self, n: int) -> float:
        oh, ow, maps = self.shape
        return 2.0 * self.window.kh * self.window.kw * oh * ow * maps * n

    def region(self, start: int, stop: int) -> tuple[int, int]:
        return self.window.region(start, stop)

    def cut(self, start: int, stop: int) -> Self:
        first, last = self.region(start, stop)
        part = copy.copy(self)
        part.below, part.shape = (last - first, *self.below[1:]), (stop - start, *self.shape[1:])
        return part
