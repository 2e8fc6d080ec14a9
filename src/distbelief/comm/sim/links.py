"""When bytes leave and arrive: the network's clockwork. It knows ranks and times, no messages."""

from typing import NamedTuple

import numpy as np

EAGER_LIMIT = 4096
"""Bytes up to which a message travels with its envelope; beyond, it waits for a matching receive."""


class Noise:
    """Lognormal factors of mean one and relative spread `sigma`; exactly one where sigma is zero."""

    def __init__(self, sigma: float, generator: np.random.Generator) -> None:
        self._sigma = sigma
        self._generator = generator
        self._drawn: list[float] = []

    def factor(self) -> float:
        """The next factor."""
        if self._sigma == 0.0:
            return 1.0
        if not self._drawn:  # many at once: single draws would cost more than the event they are for
            self._drawn = np.exp(self._sigma * self._generator.standard_normal(1024) - 0.5 * self._sigma**2).tolist()
        return self._drawn.pop()


class Transfer(NamedTuple):
    """The moments, in seconds, when the last byte leaves the source and when it reaches the destination."""

    left: float
    arrival: float


class Links:
    """One outgoing and one incoming link per rank, each carrying one transfer at a time.

    A transfer of n bytes from a to b:
        start       = max(now, out_free[a])                        out_free[a] = start + n / bandwidth
        arrival     = max(start + latency, in_free[b]) + n / bandwidth       in_free[b] = arrival
    What a rank sends to itself is a copy in memory: no latency, no link, n / memory_bandwidth.
    """

    def __init__(self, size: int, latency: float, bandwidth: float, memory_bandwidth: float, noise: Noise) -> None:
        self.latency = latency
        self._bandwidth = bandwidth
        self._memory_bandwidth = memory_bandwidth
        self._noise = noise
        self._out_free = [0.0] * size
        self._in_free = [0.0] * size
        self._last_envelope: dict[tuple[int, int], float] = {}
        self._last_read: dict[tuple[int, int], float] = {}

    def delay(self, source: int, dest: int) -> float:
        """The latency, in seconds, of one small control message."""
        return 0.0 if source == dest else self.latency * self._noise.factor()

    def transfer(self, source: int, dest: int, nbytes: int, now: float) -> Transfer:
        """Occupy both links with `nbytes` from `now` on, or as soon as they are free."""
        if source == dest:
            done = now + nbytes / self._memory_bandwidth
            return Transfer(done, done)
        duration = nbytes / self._bandwidth
        start = max(now, self._out_free[source])
        left = self._out_free[source] = start + duration
        arrival = max(start + self.delay(source, dest), self._in_free[dest]) + duration
        self._in_free[dest] = arrival
        return Transfer(left, arrival)

    def in_order(self, source: int, dest: int, time: float) -> float:
        """When an envelope that could be there at `time` is shown: never before one that was sent earlier.

        Jitter and the two kinds of message would otherwise let a later message overtake.
        """
        return self._not_before(self._last_envelope, (source, dest), time)

    def read_in_order(self, reader: int, owner: int, time: float) -> float:
        """When a read that could happen at `time` does: never before one that was asked for earlier, as in a queue."""
        return self._not_before(self._last_read, (reader, owner), time)

    @staticmethod
    def _not_before(last: dict[tuple[int, int], float], pair: tuple[int, int], time: float) -> float:
        last[pair] = max(time, last.get(pair, 0.0))
        return last[pair]
