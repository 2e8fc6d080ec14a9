"""Where the parameters of a network go that no rank holds as a whole."""

from typing import Protocol

import numpy as np

from distbelief.nn.arena import Arena, Layout


class Keeper(Protocol):
    """Takes parameters piece by piece; those that came last, and whole, are kept. All methods are Local."""

    parameters: Arena | None
    """What is kept, if it is in memory."""

    def begin(self) -> None:
        """Others are to come."""
        ...

    def add(self, start: int, values: np.ndarray) -> None:
        """Elements start..start+size-1 of the flat vector. `values` [size] are the caller's again."""
        ...

    def end(self) -> None:
        """These were all: keep them, in place of those before."""
        ...


class InMemory:
    """Keeps them in memory, as for a script."""

    def __init__(self, layout: Layout, dtype: np.dtype):
        self.parameters = Arena(layout, dtype)
        self._coming = Arena(layout, dtype)

    def begin(self) -> None: ...

    def add(self, start: int, values: np.ndarray) -> None:
        self._coming.flat[start : start + values.size] = values

    def end(self) -> None:
        self.parameters, self._coming = self._coming, self.parameters
