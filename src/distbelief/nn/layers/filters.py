"""What the layers of filters have in common, with weights of their own at each position or tied."""

import copy
from collections.abc import Sequence
from typing import Self

from distbelief.kernels import ACTIVATIONS
from distbelief.nn.layers.checks import named, one_or_more
from distbelief.nn.layers.initial import spread
from distbelief.nn.layers.layer import Shape
from distbelief.nn.layers.window import Window


class Filters:
    """y [oh, ow, maps, n] of x [H, W, C, n]: `maps` filters over every window of kh x kw pixels and all C channels."""

    keeps_scratch = False

    def __init__(
        self,
        name: str,
        below: Shape,
        maps: int,
        window: int | Sequence[int],
        stride: int = 1,
        activation: str = "linear",
    ):
        """Raises UserError for what does not fit, or is no activation."""
        self.name = name
        self.window = Window.of(window, stride)
        self.below = tuple(below)
        self.shape = (*self.window.places(self.below), one_or_more("maps", maps))
        self.activation = activation
        self.needs_output = activation != "linear"
        self.w, self.b = f"{name}.w", f"{name}.b"
        self.weights = (self.w,)
        self._activation = named("activation", activation, ACTIVATIONS)
        area = self.window.kh * self.window.kw
        self._spread = spread(activation, area * below[2], area * maps)

    @property
    def filter(self) -> Shape:
        """Of one filter: (kh, kw, C)."""
        return self.window.kh, self.window.kw, self.below[2]

    def spread(self, name: str) -> float:
        return self._spread if name == self.w else 0.0

    def flops(self, n: int) -> float:
        oh, ow, maps = self.shape
        kh, kw, channels = self.filter
        return 2.0 * oh * ow * maps * kh * kw * channels * n

    def region(self, start: int, stop: int) -> tuple[int, int]:
        return self.window.region(start, stop)

    def cut(self, start: int, stop: int) -> Self:
        first, last = self.region(start, stop)
        part = copy.copy(self)  # the spread is that of the whole
        part.below, part.shape = (last - first, *self.below[1:]), (stop - start, *self.shape[1:])
        return part
