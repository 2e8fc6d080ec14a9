"""Minibatches, assembled feature-first for the network by a compiled kernel."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distbelief.data.shuffle import random_order
from distbelief.data.source import Features, Source
from distbelief.kernels import gather_columns


class Batch(NamedTuple):
    """Some examples, last axis over examples.

    x_in: `[features, n]`, float32 or float64, C-contiguous: all features of the examples, or some. An example
    of shape `[H, W, C]` is flattened in that order, so `x_in.reshape(H, W, C, n)` is the image batch, without a copy.
    labels: classes, int64 `[n]`, or real targets, `[outputs, n]`, of x_in's dtype.
    """

    x_in: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> int:
        """Number of examples in the batch."""
        return self.x_in.shape[1]


class Batches:
    """The batches of one reader of a dataset: shuffled epochs for training, file order for evaluation.

    There is one buffer: **the inputs and targets of a batch are valid until the next one is asked for**, from any
    iterator of this object. Two that must live at the same time take two `Batches`. Local.
    """

    def __init__(
        self,
        dataset: Source,
        indices: np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        stream: int = 0,
        scale: float = 1.0,
        shift: float = 0.0,
        dtype: DTypeLike = np.float32,
        features: Features | None = None,
    ) -> None:
        """Read the examples `indices` (integers, any order) of `dataset`, `batch_size` at a time.

        Inputs become `x * scale + shift` in `dtype`, float32 or float64; real targets only change their type. Epochs
        are shuffled by (`seed`, `stream`, epoch); `stream` is the number of the replica. `features`: start and stop of
        those that are wanted of each example, as a partition of a network needs only some; `x_in` has no others.
        """
        assert batch_size >= 1, batch_size
        # File order: what is read should not depend on how the caller listed it.
        self._indices = np.sort(np.asarray(indices, dtype=np.int64))
        start, stop = features or (0, dataset.features)
        assert 0 <= start < stop <= dataset.features, features
        self._reader = dataset.reader(features)
        self._labels = dataset.labels
        self._batch_size = batch_size
        self._seed = seed
        self._stream = stream
        self._scale = float(scale)
        self._shift = float(shift)
        most = min(batch_size, len(self._indices))
        self._inputs = np.empty((stop - start) * most, dtype=dtype)
        self._targets = np.empty(self._labels.shape[1] * most if self._labels.ndim == 2 else 0, dtype=dtype)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one epoch, a smaller last one included."""
        return -(-len(self._indices) // self._batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Every example once, in an order of its own for every epoch; the last batch may be smaller.

        The order depends on the indices, seed, stream and epoch alone: it is the same on every machine, and an
        epoch can be started again without those before it.
        """
        return self._in_batches(self._indices[random_order(len(self._indices), self._seed, self._stream, epoch)])

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._indices)

    def read(self, positions: np.ndarray) -> Iterator[Batch]:
        """The examples at `positions` among the indices in file order, int64 [n]; the last batch may be smaller."""
        return self._in_batches(self._indices[positions])

    def read_ahead(self, positions: np.ndarray) -> None:
        """Start to bring in what `read` will want; never waits."""
        self._reader.will_need(self._indices[positions])

    def in_order(self) -> Iterator[Batch]:
        """Every example once, in file order; the last batch may be smaller."""
        return self._in_batches(self._indices)

    def _in_batches(self, indices: np.ndarray) -> Iterator[Batch]:
        size = self._batch_size
        for start in range(0, len(indices), size):
            rows = indices[start : start + size]
            source_nf, places = self._reader.read(rows)
            self._reader.will_need(indices[start + size : start + 2 * size])  # comes in while this batch is used
            x_in = self._gather(source_nf, places, self._scale, self._shift, self._inputs)
            if self._labels.ndim == 1:
                yield Batch(x_in, self._labels[rows])
            else:
                yield Batch(x_in, self._gather(self._labels, rows, 1.0, 0.0, self._targets))

    @staticmethod
    def _gather(source_nf: np.ndarray, rows: np.ndarray, scale: float, shift: float, buffer: np.ndarray) -> np.ndarray:
        """The rows as columns, at the front of a flat buffer, so that a smaller batch is contiguous too."""
        features = source_nf.shape[1]
        columns_fn = buffer[: features * len(rows)].reshape(features, len(rows))
        gather_columns(source_nf, rows, scale, shift, columns_fn)
        return columns_fn
