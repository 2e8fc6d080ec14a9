"""A batch cut into portions: ranges of a fixed order of the examples, so that a portion is the same in every batch."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from distbelief.algorithms.model import Batch


class Examples(Protocol):
    """A set of examples in an order that is the same on every rank."""

    def __len__(self) -> int: ...

    def read(self, positions: np.ndarray) -> Iterator[Batch]:
        """The examples at `positions`, int64 [n], in minibatches. A minibatch is valid until the next one. Local."""
        ...


class Portions:
    """Portion i of ceil(examples / size): the examples at the positions i size .. (i + 1) size - 1 of `order`."""

    def __init__(self, examples: int, size: int, order: np.ndarray | None = None):
        """`order`: a permutation of 0..examples-1, int64; None for the examples' own."""
        self.examples = examples
        self.size = size
        self._order = order

    def __len__(self) -> int:
        return -(-self.examples // self.size)

    def count(self, portion: int) -> int:
        """How many examples a portion has."""
        return min((portion + 1) * self.size, self.examples) - portion * self.size

    def positions(self, portion: int) -> np.ndarray:
        """Its examples, ascending."""
        first = portion * self.size
        last = first + self.count(portion)
        return np.arange(first, last) if self._order is None else np.sort(self._order[first:last])
