"""How batches get at the examples of a dataset: by rows, with a word beforehand about those that come next."""

import mmap
from typing import Protocol

import numpy as np


class Reader(Protocol):
    """One reader's way into a dataset. All methods are Local."""

    def will_need(self, rows: np.ndarray) -> None:
        """These rows, int64 `[n]`, are read next: start to bring them in, if that takes time; never waits."""
        ...

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An array `[any, features]` (uint8, float32 or float64) and, int64 `[n]`, which of its rows are `rows`.

        Valid until the next call. Raises UserError if an example cannot be read.
        """
        ...


class ArrayReader:
    """Rows of an array in memory or in a mapped file, where they lie."""

    def __init__(self, source_nf: np.ndarray):
        self._source_nf = source_nf
        self._mapped = _mapping(source_nf)

    def will_need(self, rows: np.ndarray) -> None:
        """Of a mapped file, the system is asked to read ahead."""
        if self._mapped is None:
            return
        pages, first = self._mapped
        stride = self._source_nf.shape[1] * self._source_nf.itemsize
        for row in rows:
            start = first + int(row) * stride
            page = start - start % mmap.PAGESIZE
            pages.madvise(mmap.MADV_WILLNEED, page, start + stride - page)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._source_nf, rows


def _mapping(array: np.ndarray) -> tuple[mmap.mmap, int] | None:
    """The mapped file that `array` lies in, and the byte where it begins there; None for an array in memory."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
        return None
    begin = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    return base, array.__array_interface__["data"][0] - begin
