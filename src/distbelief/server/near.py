"""A shard whose memory lies in its client's address space, as on the same node: read where it is, without a copy."""

from collections.abc import Sequence

import numpy as np

from distbelief.comm.endpoint import Window
from distbelief.server.exposed import MARK, Exposed


class Near:
    """What a client reads of a shard. All methods are Local."""

    def __init__(self, window: Window, memory: np.ndarray, exposed: Exposed, start: int, wire: np.dtype):
        """`memory`: the shard's window, all of it; `start`: the beginning of its interval; `wire`: what is read."""
        self._window = window
        self._memory = memory
        self._exposed = exposed
        self._values = exposed.numbers(memory, wire)
        self._values.flags.writeable = False  # they are the shard's own
        self._start = start

    def values(self, start: int, stop: int) -> np.ndarray:
        """Elements start..stop-1 of the flat vector, shape (stop - start,): a view; the shard goes on updating it."""
        return self._values[start - self._start : stop - self._start]

    def applied(self, client: int) -> int:
        """The latest of a client's pieces that the shard has applied: to be asked before values are read."""
        mark = self._mark(self._exposed.applied(client))
        self._window.sync()
        return mark

    def torn(self, client: int, applied: int, own: Sequence[int]) -> bool:
        """Whether values that have been read since may or may not hold one of the client's pieces, by its mark."""
        self._window.sync()
        begun = self._mark(self._exposed.begun(client))
        return any(applied < mark <= begun for mark in own)

    def _mark(self, place: int) -> int:
        return int(self._memory[place : place + MARK.itemsize].view(MARK)[0])
