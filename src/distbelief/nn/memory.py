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
    """What the gradients by those outputs need beyond the room of outputs that are no longer needed."""
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

    Outputs lie one after another. Going backwards, those above a layer are no longer needed: errors take turns right
    behind its output and at the far end of the region, one read while the other is written. Scratch that nobody keeps
    is one place for all.
    """

    def __init__(self, layers: Sequence[Layer], loss: Loss, batch: int, dtype: np.dtype):
        self._layers = layers
        self._dtype = dtype
        self._views: dict[int, Views] = {}
        *ends, self._far = self._places(batch)
        self.activations = ends[-1]
        self.errors = self._far - self.activations
        needed = [self._bytes(layer.scratch(batch)) for layer in layers]
        kept = [size if layer.keeps_scratch else 0 for layer, size in zip(layers, needed, strict=True)]
        shared = max(_whole_lines(8 * loss.scratch(batch)), *needed)
        self.scratch_bytes = sum(kept) + shared
        self._arena = _aligned(self._far + self.scratch_bytes)
        begin = self._far
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
        y, dy, ends = [], [], self._places(n)
        last = len(self._layers) - 1
        for i, layer in enumerate(self._layers):
            shape, begin, end = (*layer.shape, n), ends[i], ends[i + 1]
            y.append(self._array(begin, shape))
            # Written while the layer above goes backwards: behind the output of that.
            near = ends[min(i + 1, last) + 1]
            dy.append(self._array(self._far - (end - begin) if i % 2 else near, shape))
        return Views(y, dy, np.empty((0, *self._layers[0].below[1:], n), self._dtype))

    def _places(self, n: int) -> list[int]:
        """Where each output begins, where the last one ends, and what outputs and errors need in all."""
        ends, far = [0], 0
        below = 0
        for layer in self._layers:
            size = self._bytes(math.prod(layer.shape) * n)
            ends.append(ends[-1] + size)
            far = max(far, ends[-1] + size + below)
            below = size
        return [*ends, far]

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
