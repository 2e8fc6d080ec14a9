"""A batch cut into portions: ranges of a fixed order of the examples, so that a portion is the same in every batch."""

import numpy as np

from distbelief.data.shuffle import random_order

# Keeps the order of portions independent of the other orders of this seed.
_PORTIONS_KEY = (0, 0, 2)


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


def cut(examples: int, size: int, mixed: bool, seed: int) -> Portions:
    """Portions of `size` out of so many examples, the same on every rank.

    mixed: of examples from everywhere, chosen by `seed`, so that some portions are like all of them; if not, of
    neighbours, which are read faster.
    """
    return Portions(examples, size, random_order(examples, seed, *_PORTIONS_KEY) if mixed else None)
