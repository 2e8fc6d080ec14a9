"""What a shard exposes in its window, one thing behind the other: record, marks, parameters, shadow."""

from typing import NamedTuple

import numpy as np

from distbelief.server.messages import RECORD
from distbelief.server.settings import Server

LINE = 64  # bytes of a cache line
MARK = np.dtype("<i8")
MARKS = np.dtype([("begun", MARK), ("applied", MARK)])


class Exposed(NamedTuple):
    """The places of a shard of `size` parameters that `clients` push to. All in bytes from the window's beginning."""

    size: int
    itemsize: int
    clients: int
    shadowed: bool

    @classmethod
    def by(cls, settings: Server, size: int, dtype: np.dtype, clients: int) -> "Exposed":
        return cls(size, np.dtype(dtype).itemsize, clients, settings.fetch_wire == "bfloat16")

    def begun(self, client: int) -> int:
        """The latest of this client's pieces that the shard has begun to apply, by their count: one MARK."""
        return RECORD.itemsize + client * MARKS.itemsize

    def applied(self, client: int) -> int:
        """The latest of them that it has applied."""
        return self.begun(client) + MARK.itemsize

    @property
    def parameters(self) -> int:
        return RECORD.itemsize + lines(self.clients * MARKS.itemsize)

    @property
    def shadow(self) -> int:
        """The parameters in bfloat16, if any."""
        return self.parameters + lines(self.size * self.itemsize)

    def place(self, wire: np.dtype) -> int:
        """The parameters as they travel: those themselves, or the shadow."""
        return self.parameters if wire.itemsize == self.itemsize else self.shadow

    def numbers(self, memory: np.ndarray, wire: np.dtype) -> np.ndarray:
        """The parameters as they travel, [size], in such a window's `memory`: a view."""
        begin = self.place(wire)
        return memory[begin : begin + self.size * wire.itemsize].view(wire)

    @property
    def nbytes(self) -> int:
        return self.shadow + (lines(2 * self.size) if self.shadowed else 0)


def lines(nbytes: int) -> int:
    """As many bytes in whole lines of the cache."""
    return -(-nbytes // LINE) * LINE
