"""Local contrast normalisation."""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np

from distbelief.errors import UserError
from distbelief.kernels import PLANES, normalise_backward, normalise_forward
from distbelief.nn.layers.layer import Shape
from distbelief.nn.layers.window import Window

# Standard deviation of the Gaussian, in window sizes.
DEVIATION = 0.25


class Normalise:
    """y [H, W, C, n] of x [H, W, C, n]: first subtractive, then divisive normalisation.

        v = x - sum_wc' g x          the weighted mean over the window and all maps
        s = sqrt(sum_wc' g v^2)
        y = v / max(floor, s)

    Jarrett et al. 2009, with the divisor of Le et al. 2012 (there the floor is 0.01, in the former the mean of s over
    the image). Both leave the width of the Gaussian g open: its standard deviation is a quarter of the window, as in
    Torch's SpatialContrastiveNormalization. The weights g sum to one over window and maps. At the borders of the image
    the window is cut, and the weights left sum to one again: a constant image gives 0 everywhere.
    """

    weights: tuple[str, ...] = ()
    tied = False
    needs_output = True
    keeps_scratch = True

    def __init__(self, name: str, below: Shape, window: int | Sequence[int] = 5, floor: float = 0.01):
        """`window`: odd. Raises UserError for what does not fit."""
        self.name = name
        self.window = Window.of(window, 1)
        self.window.places(below)
        if not (self.window.kh % 2 and self.window.kw % 2):
            raise UserError(f"a window of {[self.window.kh, self.window.kw]} has no middle, expected odd numbers")
        if not floor > 0:
            raise UserError(f"a floor of {floor}, expected more than 0")
        self.below = self.shape = tuple(below)
        self.floor = floor
        self._image_rows = below[0]
        # Rows of the image where x and y begin: not 0 in a part of a cut layer, whose edges are no borders.
        self._first = self._start = 0
        filters = gaussian(self.window.kh, below[0]), gaussian(self.window.kw, below[1])
        self._filters = {np.dtype(t): [f.astype(t) for f in filters] for t in (np.float32, np.float64)}

    @property
    def shapes(self) -> dict[str, Shape]:
        return {}

    def spread(self, name: str) -> float:
        raise KeyError(name)

    def forward(self, parameters, x, y, scratch) -> None:
        normalise_forward(x, self._first, *self._filters[x.dtype], self.floor, self._start, y, scratch)

    def backward(self, parameters, x, y, dy, gradient, dx, scratch) -> None:
        normalise_backward(x, self._first, *self._filters[x.dtype], self.floor, self._start, y, dy, dx, scratch)

    def bounded(self, x, y, dy) -> bool:
        return True  # there are none

    def scratch(self, n: int) -> int:
        return PLANES * self.below[0] * self.below[1] * n

    def flops(self, n: int) -> float:
        height, width, maps = self.shape
        return (8.0 * maps + 4.0 * (self.window.kh + self.window.kw)) * height * width * n

    def region(self, start: int, stop: int) -> tuple[int, int]:
        """Twice the window's reach: the divisor looks at v around it, and v at x around it."""
        assert start < stop
        halo = 2 * (self.window.kh // 2)
        first = max(0, self._start + start - halo)
        last = min(self._image_rows, self._start + stop + halo)
        return first - self._first, last - self._first

    def cut(self, start: int, stop: int) -> Self:
        first, last = self.region(start, stop)
        part = copy.copy(self)
        part.below, part.shape = (last - first, *self.below[1:]), (stop - start, *self.shape[1:])
        part._first, part._start = self._first + first, self._start + start
        return part


def gaussian(window: int, size: int) -> np.ndarray:
    """[size, window]: the weights of the places around each of `size` places, 0 outside of them; rows sum to one."""
    offsets = np.arange(window) - window // 2
    weights = np.exp(-0.5 * (offsets / (DEVIATION * window)) ** 2)
    places = np.arange(size)[:, None] + offsets
    weights = np.where((places >= 0) & (places < size), weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
