"""Data that a user brings, and the problem that it makes together with a model (algorithms.model.Problem)."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from distbelief.adapters.model import Adapted, Minibatch
from distbelief.data import held_out, part
from distbelief.data.shuffle import random_order
from distbelief.errors import UserError

# Examples that an evaluation scores at once, if a minibatch has no more: between two of them rank 0 serves its shard.
EVALUATION_BATCH = 250


class Data(Protocol):
    """Examples, numbered from 0: whatever has a length and gives a batch for an array of their numbers.

    A NumPy array is such data, with arrays as batches; `ArrayData` is; so is a class of a user's own.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> Any:
        """The batch of the examples `rows`, int64 [n], in that order: what the model gets. Local."""
        ...


class ArrayData:
    """Arrays that belong together, example-first. A batch is the tuple of their rows: arrays `[n, ...]`.

    Arrays may be memory-mapped, and may be of any type that has a `shape` and takes an array of rows as an index,
    such as SciPy's sparse rows.
    """

    def __init__(self, *arrays: Any):
        """Raises UserError if there are none, or they differ in length."""
        self.arrays = tuple(array if hasattr(array, "shape") else np.asarray(array) for array in arrays)
        if not self.arrays:
            raise UserError("data: no arrays, expected at least one")
        shapes = [tuple(array.shape) for array in self.arrays]
        if not all(shapes) or len({shape[0] for shape in shapes}) > 1:
            raise UserError(f"data: arrays of shapes {', '.join(map(str, shapes))}, expected as many rows in each")

    def __len__(self) -> int:
        return self.arrays[0].shape[0]

    def __getitem__(self, rows: np.ndarray) -> tuple[Any, ...]:
        return tuple(array[rows] for array in self.arrays)


class Part:
    """The examples that one replica reads (algorithms.model.Epochs). Local."""

    def __init__(self, data: Data, rows: np.ndarray, batch: int, seed: int, stream: int):
        self._data = data
        self._rows = rows
        self._batch = batch
        self._seed = seed
        self._stream = stream

    def epoch(self, number: int) -> Iterator[Minibatch]:
        """Every example once, in an order of its own for every epoch; the last batch may be smaller."""
        return self._in_batches(self._rows[random_order(len(self._rows), self._seed, self._stream, number)])

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, positions: np.ndarray) -> Iterator[Minibatch]:
        """The examples at `positions`, int64 [n], in that order; the last batch may be smaller."""
        return self._in_batches(self._rows[positions])

    def read_ahead(self, positions: np.ndarray) -> None:
        """Nothing: when to read is the data's own affair."""

    def in_order(self) -> Iterator[Minibatch]:
        return self._in_batches(self._rows)

    def first(self, count: int) -> Minibatch:
        """A batch of the first `count` examples, or of all if there are fewer."""
        return Minibatch(self._rows[:count], self._data[self._rows[:count]])

    def _in_batches(self, rows: np.ndarray) -> Iterator[Minibatch]:
        for start in range(0, len(rows), self._batch):
            some = rows[start : start + self._batch]
            yield Minibatch(some, self._data[some])


class UserProblem:
    """A user's model and data as the algorithms see them (algorithms.model.Problem). All methods are Local."""

    def __init__(
        self,
        model: Any,
        data: Any,
        *,
        batch: int = 32,
        held_out: int | Any | None = None,
        seed: int = 0,
    ):
        """
        model: an `adapters.Model`, or whatever has its attributes; or a function or class that makes one.
        data: a tuple of arrays, or `Data`.
        held_out: how many examples no replica trains on, chosen at random (None: one in ten), or other data.

        Raises UserError.
        """
        self.seed = seed
        self._make = _maker(model)
        self._data = _data(data, "data")
        self._batch = batch
        self._rows, self._held_out = self._split(held_out)

    @property
    def training_examples(self) -> int:
        return len(self._rows)

    def model(self) -> Adapted:
        model = self._make()
        if hasattr(model, "begin_from"):
            model.begin_from(self.seed)
        return Adapted(model)

    def batches(self, replica: int, replicas: int) -> Part:
        """The minibatches of one replica's part; raises UserError if the part is empty."""
        return Part(self._data, part(self._rows, replica, replicas), self._batch, self.seed, replica)

    def held_out_part(self) -> Part:
        """The examples for evaluations, in batches that are worth a pause."""
        return Part(*self._held_out, max(self._batch, EVALUATION_BATCH), self.seed, 0)

    def held_out(self) -> Iterator[Minibatch]:
        return self.held_out_part().in_order()

    def examples(self) -> Part:
        return Part(self._data, self._rows, self._batch, self.seed, 0)

    def held_out_examples(self) -> Part:
        return self.held_out_part()

    def test(self) -> None:
        """There are no test examples: scripts try the parameters themselves."""

    def _split(self, wanted: Any) -> tuple[np.ndarray, tuple[Data, np.ndarray]]:
        """The rows to train on; the data and the rows to evaluate on."""
        examples = len(self._data)
        if wanted is None:
            wanted = max(examples // 10, 1)
        if isinstance(wanted, int | np.integer):
            if examples < 2:
                raise UserError("data: 1 example, expected at least 2: one to train on and one to hold out")
            if not 1 <= wanted < examples:
                raise UserError(f"held_out: {wanted}, expected 1 to {examples - 1}, as there are {examples} examples")
            training, rows = held_out(examples, int(wanted), self.seed)
            return training, (self._data, rows)
        other = _data(wanted, "held_out")
        return np.arange(examples), (other, np.arange(len(other)))


def _maker(model: Any) -> Callable[[], Any]:
    if hasattr(model, "gradient") and not isinstance(model, type):
        return lambda: model
    if not callable(model):
        raise UserError(f"model: {model!r}, expected one with a method gradient, or a function that makes one")
    return model


def _data(data: Any, name: str) -> Data:
    if isinstance(data, tuple):
        data = ArrayData(*data)
    if isinstance(data, list) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise UserError(f"{name}: a {type(data).__name__}, expected a tuple of arrays, or a length and an index")
    if len(data) == 0:
        raise UserError(f"{name}: no examples, expected at least one")
    return data
