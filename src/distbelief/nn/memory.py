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
    nothing: np.ndarray
    """The gradient by the inputs that the first layer is not to compute: [0, *layers[0].below[1:], n]."""


class Buffers:
    """What a step writes besides the gradient, for up to `batch` examples; one arena, allocated here.

    Errors take turns at the two ends of one region: while a layer goes backwards, the error it reads is at one end
    and the one it writes at the other. Scratch that nobody keeps is one place for all.
    """

    def __init__(self, layers: Sequence[Layer], loss: Loss, batch: int, dtype: np.dtype):
        self._layers = layers
        self._dtype = dtype
        self._views: dict[int, Views] = {}
        sizes = [self._bytes(math.prod(layer.shape) * batch) for layer in layers]
        self.activations = sum(sizes)
        self.errors = max(map(sum, zip([0, *sizes], sizes, strict=False)))
        needed = [self._bytes(layer.scratch(batch)) for layer in layers]
        kept = [size if layer.keeps_scratch else 0 for layer, size in zip(layers, needed, strict=True)]
        shared = max(_whole_lines(8 * loss.scratch(batch)), *needed)
        self.scratch_bytes = sum(kept) + shared
        self._arena = _aligned(self.activations + self.errors + self.scratch_bytes)
        begin = self.activations + self.errors
        everyone = self._arena[begin : begin + shared]
        self.loss_scratch = everyone.view(np.float64)
        """1-D."""
        self.scratch: list[np.ndarray] = []
        """Of each layer, 1-D: its own, or everyone's."""
        begin += shared
        for layer, size in zip(layers, kept, strict=True):
            place = self._arena[begin : begin + size] if layer.keeps_scratch else everyone
            self.scratch.append(place.view(dtype))
            begin += size

    def views(self, n: int) -> Views:
        """The arrays for `n` examples: contiguous, whatever n. Made once for each n, so that a step makes none."""
        if n not in self._views:
            self._views[n] = self._make(n)
        return self._views[n]

    def _make(self, n: int) -> Views:
        y, dy, place, end = [], [], 0, self.activations + self.errors
        for i, layer in enumerate(self._layers):
            shape, size = (*layer.shape, n), self._bytes(math.prod(layer.shape) * n)
            y.append(self._array(place, shape))
            dy.append(self._array(end - size if i % 2 else self.activations, shape))
            place += size
        return Views(y, dy, np.empty((0, *self._layers[0].below[1:], n), self._dtype))

    def _array(self, start: int, shape: tuple[int, ...]) -> np.ndarray:
        stop = start + math.prod(shape) * self._dtype.itemsize
        return self._arena[start:stop].view(self._dtype).reshape(shape)

    def _bytes(self, elements: int) -> int:
        return _whole_lines(elements * self._dtype.itemsize)


def _whole_lines(size: int) -> int:
    return -(-size // LINE) * LINE


def _aligned(size: int) -> np.ndarray:
    """`size` bytes that begin a cache line."""
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size]
