"""The memory of a training step: one arena, planned from the layers and the batch size."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distbelief.nn.layers import Layer
from distbelief.nn.losses import Loss

# Bytes: every array begins a cache line.
LINE = 64


class Memory(NamedTuple):
    """Bytes that a network takes for training."""

    parameters: int
    gradients: int
    activations: int
    """The outputs of all layers."""
    errors: int
    """The gradients by those outputs, of which no more than two live at a time."""
    scratch: int
    """What layers and loss need besides."""

    @property
    def planned(self) -> int:
        return sum(self)


class Views(NamedTuple):
    """The arrays of a step on n examples, from the inputs up: y[i], dy[i] are [*layers[i].shape, n]."""

    y: list[np.ndarray]
    dy: list[np.ndarray]
    scratch: list[np.ndarray]
    """Of each layer, 1-D."""
    loss: np.ndarray
    """Scratch of the loss, 1-D, float64."""
    nothing: np.ndarray
    """The gradient by the inputs that the first layer is not to compute: [0, *layers[0].below[1:], n]."""


class Buffers:
    """What a step writes besides the gradient, for up to `batch` examples; one arena, allocated here.

    Errors take turns at the two ends of one region: while a layer goes backwards, the error it reads is at one end
    and the one it writes at the other.
    """

    def __init__(self, layers: Sequence[Layer], loss: Loss, batch: int, dtype: np.dtype):
        self._layers = layers
        self._loss = loss
        self._dtype = dtype
        self._views: dict[int, Views] = {}
        sizes = [self._bytes(math.prod(layer.shape) * batch) for layer in layers]
        self.activations = sum(sizes)
        self.errors = max(map(sum, zip([0, *sizes], sizes, strict=False)))
        scratch = sum(self._bytes(layer.scratch(batch)) for layer in layers)
        self.scratch = scratch + _whole_lines(8 * loss.scratch(batch))
        self._arena = _aligned(self.activations + self.errors + self.scratch)

    def views(self, n: int) -> Views:
        """The arrays for `n` examples: contiguous, whatever n. Made once for each n, so that a step makes none."""
        if n not in self._views:
            self._views[n] = self._make(n)
        return self._views[n]

    def _make(self, n: int) -> Views:
        arena, end = self._arena, self.activations + self.errors
        y, dy, scratch, place = [], [], [], 0
        for i, layer in enumerate(self._layers):
            shape, size = (*layer.shape, n), self._bytes(math.prod(layer.shape) * n)
            y.append(arena[place:].view(self._dtype)[: math.prod(shape)].reshape(shape))
            place += size
            error = arena[end - size :] if i % 2 else arena[self.activations :]
            dy.append(error.view(self._dtype)[: math.prod(shape)].reshape(shape))
        for layer in self._layers:
            scratch.append(arena[end:].view(self._dtype)[: layer.scratch(n)])
            end += self._bytes(layer.scratch(n))
        loss = arena[end:].view(np.float64)[: self._loss.scratch(n)]
        return Views(y, dy, scratch, loss, np.empty((0, *self._layers[0].below[1:], n), self._dtype))

    def _bytes(self, elements: int) -> int:
        return _whole_lines(elements * self._dtype.itemsize)


def _whole_lines(size: int) -> int:
    return -(-size // LINE) * LINE


def _aligned(size: int) -> np.ndarray:
    """`size` bytes that begin a cache line."""
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size]
