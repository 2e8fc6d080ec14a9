"""The memory of a training step: one arena, planned from the layers and the batch size."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from distbelief.errors import UserError
from distbelief.nn.arena import LINE, aligned
from distbelief.nn.build import place
from distbelief.nn.layers import Layer
from distbelief.nn.losses import Loss


class Memory(NamedTuple):
    """Bytes that a network takes for training."""

    parameters: int
    """With their copies in bfloat16."""
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
    behind its output and at the far end of the region, one read while the other is written. The first of them, the
    loss's, lies in the place of the outputs that it is of, if the last layer can do without those. Scratch that nobody
    keeps is one place for all.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: Loss,
        batch: int,
        dtype: np.dtype,
        outputs: Sequence[np.dtype] | None = None,
    ):
        """`outputs`: the types of the layers' outputs and of the gradients by them, where they are not all `dtype`."""
        self._layers = layers
        self._dtype = dtype
        self._outputs = outputs or [dtype] * len(layers)
        self._views: dict[int, Views] = {}
        self.activations = sum(self._sizes(batch))
        *_, self._far = self._places(batch)
        self.errors = self._far - self.activations
        needed = [_whole_lines(layer.scratch(batch) * dtype.itemsize) for layer in layers]
        kept = [size if layer.keeps_scratch else 0 for layer, size in zip(layers, needed, strict=True)]
        others = [size for layer, size in zip(layers, needed, strict=True) if not layer.keeps_scratch]
        shared = max(_whole_lines(8 * loss.scratch(batch)), *others, 0)
        self.scratch_bytes = sum(kept) + shared
        self._arena = aligned(self._far + self.scratch_bytes, np.uint8, np.empty)
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
        shapes = [(*layer.shape, n) for layer in self._layers]
        begins, nears, _ = self._places(n)
        fars = [self._far - size for size in self._sizes(n)]
        y = [self._array(*place) for place in zip(begins, shapes, self._outputs, strict=True)]
        starts = [fars[i] if i % 2 else nears[i] for i in range(len(shapes))]
        if not self._layers[-1].needs_output:
            starts[-1] = begins[-1]
        dy = [self._array(*place) for place in zip(starts, shapes, self._outputs, strict=True)]
        return Views(y, dy, np.empty((0, *self._layers[0].below[1:], n), self._dtype))

    def _places(self, n: int) -> tuple[list[int], list[int], int]:
        """Where each output begins, where its error may: behind the output above; and the bytes of it all."""
        sizes = self._sizes(n)
        ends = list(itertools.accumulate(sizes))
        nears = [*ends[1:], ends[-1]]
        errors = sizes if self._layers[-1].needs_output else [*sizes[:-1], 0]
        far = max(map(sum, zip(nears, errors, strict=True)))
        for i in range(0, len(sizes), 2):  # those that are near, with a neighbour's at the far end
            beside = max(errors[max(0, i - 1) : i] + errors[i + 1 : i + 2], default=0)
            far = max(far, nears[i] + errors[i] + beside)
        return [0, *ends[:-1]], nears, far

    def _array(self, start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        stop = start + math.prod(shape) * dtype.itemsize
        return self._arena[start:stop].view(dtype).reshape(shape)

    def _sizes(self, n: int) -> list[int]:
        """Bytes of each layer's output."""
        elements = [math.prod(layer.shape) * n for layer in self._layers]
        return [_whole_lines(size * dtype.itemsize) for size, dtype in zip(elements, self._outputs, strict=True)]


@contextlib.contextmanager
def room_for(layers: Sequence[Layer], batch: int) -> Iterator[None]:
    """Where memory for `layers` is taken: if there is none, raises UserError, which names the one that wants most."""

    def numbers(layer: Layer) -> int:
        return math.prod(layer.shape) * batch + sum(map(math.prod, layer.shapes.values()))

    try:
        yield
    except MemoryError:
        i = max(range(len(layers)), key=lambda i: numbers(layers[i]))
        shape = [*layers[i].shape, batch]
        raise UserError(f"{place(i, layers[i].name)}: outputs {shape}: more than there is memory for") from None


def _whole_lines(size: int) -> int:
    return -(-size // LINE) * LINE
