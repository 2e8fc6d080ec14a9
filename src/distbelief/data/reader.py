"""How batches get at the examples of a dataset: by rows, with a word beforehand about those that come next."""

from typing import Protocol

import numpy as np

from distbelief.data.read_ahead import advise


class Reader(Protocol):
    """One reader's way into a dataset. All methods are Local."""

    def will_need(self, rows: np.ndarray) -> None:
        """These rows, int64 `[n]`, are read next: start to bring them in, if that takes time; never waits."""
        ...

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An array `[any, features]` (uint8, float32 or float64) and, int64 `[n]`, which of its rows are `rows`.

        Each of its rows is contiguous; there may be gaps between them. Valid until the next call. Raises UserError if
        an example cannot be read.
        """
        ...


class ArrayReader:
    """Rows of an array [examples, features], or of some of its columns, where they lie: in memory or a mapped file."""

    def __init__(self, source_nf: np.ndarray):
        self._source_nf = source_nf

    def will_need(self, rows: np.ndarray) -> None:
        """Of a mapped file, the system is asked to read ahead."""
        advise(self._source_nf, rows)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._source_nf, rows
