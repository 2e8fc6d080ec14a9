"""The flat parameter vector: named tensors as intervals of one contiguous array."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from distbelief.errors import UserError

# Bytes of a line of the cache.
LINE = 64
# Bytes that have an address.
_MOST = 1 << 62
# Where in a page arenas begin, in lines, in turn. What lies at the same place of several pages wants the same few lines
# of the cache: a product that takes in its gradient (nn.accrual) took a third as long again where sums and parameters
# did.
_BEGINNINGS = itertools.cycle(range(0, 54, 9))


def aligned(
    size: int, dtype: np.dtype | type, allocate: Callable[..., np.ndarray] = np.zeros, skipped: int = 0
) -> np.ndarray:
    """[size], and begins a line of the cache: a product into a matrix that does not takes up to half as long again.

    NumPy's own begin at multiples of 16 bytes. `skipped`: lines that lie before it and nobody uses. Raises MemoryError.
    """
    itemsize = np.dtype(dtype).itemsize
    if size * itemsize > _MOST:
        raise MemoryError  # in NumPy's words it would be a ValueError or an OverflowError
    raw = allocate(size + (1 + skipped) * LINE // itemsize, dtype)
    start = (-raw.ctypes.data % LINE + skipped * LINE) // itemsize
    return raw[start : start + size]


class Tensor(NamedTuple):
    """Where a logical tensor lies in the flat vector: elements start..stop-1, in C order."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Layout:
    """The order, shapes and places of a model's tensors; the same on every rank.

    `shapes` maps logical names to shapes; the vector is their concatenation in that order, without gaps.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.tensors: list[Tensor] = []
        self.size = 0
        for name, shape in shapes.items():
            stop = self.size + math.prod(shape)
            self.tensors.append(Tensor(name, tuple(shape), self.size, stop))
            self.size = stop

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {tensor.name: tensor.shape for tensor in self.tensors}


class Misfit(Exception):
    """What is written into an arena, or asked of it, is not of its layout."""


class WrongShape(Misfit, ValueError): ...


class WrongType(Misfit, TypeError): ...


class WrongName(Misfit, KeyError): ...


class Arena:
    """One flat array and a view of it for every tensor of a layout. Changing either changes both."""

    def __init__(self, layout: Layout, dtype: np.dtype | type = np.float32, flat: np.ndarray | None = None):
        """Zeros, or a view of `flat`, shape (layout.size,). Raises UserError if there is no memory for them."""
        self.layout = layout
        self.flat = _zeros(layout, dtype) if flat is None else flat
        if self.flat.shape != (layout.size,):
            raise ValueError(f"the flat vector has shape {self.flat.shape}, the layout needs ({layout.size},)")
        self._views = {t.name: self.flat[t.start : t.stop].reshape(t.shape) for t in layout.tensors}

    def __getitem__(self, name: str) -> np.ndarray:
        """Raises WrongName, a KeyError."""
        try:
            return self._views[name]
        except KeyError:
            raise WrongName(name) from None

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        """Copy `value` into a tensor: nothing is broadcast, and no number loses its imaginary part.

        Raises WrongName, WrongShape (a ValueError) or WrongType (a TypeError).
        """
        view, value = self[name], np.asarray(value)
        if value.shape != view.shape:
            raise WrongShape(f"a value of shape {value.shape} for tensor {name} of shape {view.shape}")
        if value is not view:  # as after arena[name] += something
            try:
                np.copyto(view, value, casting="same_kind")
            except TypeError as error:
                raise WrongType(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)


def _zeros(layout: Layout, dtype: np.dtype | type) -> np.ndarray:
    try:
        return aligned(layout.size, dtype, skipped=next(_BEGINNINGS))
    except MemoryError:
        largest = max(layout.tensors, key=lambda tensor: tensor.stop - tensor.start)
        raise UserError(
            f"{largest.name}: shape {list(largest.shape)}, of {layout.size:,} parameters in all: more than there is "
            "memory for"
        ) from None
