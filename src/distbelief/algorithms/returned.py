"""Gradients whose memory goes back to the system once they have been sent.

A network that fills the memory of its nodes has no room for its gradient beside its parameters. The arena for it is
then an address range: a page of it takes memory from when the backward pass writes it until a shard has taken it.
"""

import mmap
from collections import deque

import numpy as np

from distbelief.comm.endpoint import Endpoint, Request
from distbelief.nn.arena import Arena, Layout

# Bytes that may be on their way: who produces faster than the shards take waits for the oldest.
MOST = 64 << 20


class ReturnedArena(Arena):
    """An arena of zeros at first; what is given back is zeros again."""

    def __init__(self, layout: Layout, dtype: np.dtype):
        dtype = np.dtype(dtype)
        nbytes = max(layout.size * dtype.itemsize, 1)
        # Private: pages of a shared mapping would stay.
        self._memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        super().__init__(layout, dtype, np.frombuffer(self._memory, dtype, layout.size))

    def give_back(self, start: int, stop: int) -> None:
        """Elements start..stop-1, but for the pages at the ends that they share with others. Local."""
        size = self.flat.itemsize
        first = -(-start * size // mmap.PAGESIZE) * mmap.PAGESIZE
        last = stop * size // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)


class Leaving:
    """What is on its way out of such arenas. All methods are Local."""

    def __init__(self, endpoint: Endpoint, timeout: float):
        self._endpoint = endpoint
        self._timeout = timeout
        self._sent: deque[tuple[Request, ReturnedArena, int, int]] = deque()
        self._nbytes = 0

    def add(self, request: Request, arena: ReturnedArena, start: int, stop: int) -> None:
        """Elements start..stop-1 leave with `request`; waits if too much is on its way (DeadlineExpired)."""
        self._sent.append((request, arena, start, stop))
        self._nbytes += (stop - start) * arena.flat.itemsize
        while self._sent and (self._nbytes > MOST or self._sent[0][0].done()):
            request, arena, start, stop = self._sent.popleft()
            self._endpoint.wait_all([request], self._timeout, "the shards to take a piece of a gradient")
            arena.give_back(start, stop)
            self._nbytes -= (stop - start) * arena.flat.itemsize
