"""A shard: an interval of the parameters, its update rule's state, and a count of its updates."""

import numpy as np

from distbelief.comm.endpoint import Window
from distbelief.optim import Rule
from distbelief.server.messages import RECORD
from distbelief.server.placement import Interval


class Shard:
    """Holds its parameters in a window, so that readers cost it nothing, and updates them in place."""

    def __init__(self, interval: Interval, values: np.ndarray, rule: Rule, window: Window):
        """`values`: the interval's first parameters, shape (interval.size,). Local."""
        self.interval = interval
        self._window = window
        self._record = window.local[: RECORD.itemsize].view(RECORD)
        self.parameters = window.local[RECORD.itemsize :].view(values.dtype)
        self.parameters[:] = values
        self._state = rule.state(interval.size, values.dtype)
        window.sync()

    @staticmethod
    def window_bytes(interval: Interval, dtype: np.dtype) -> int:
        """How large the window of a shard of `interval` must be."""
        return RECORD.itemsize + interval.size * np.dtype(dtype).itemsize

    @property
    def count(self) -> int:
        """Updates applied so far."""
        return int(self._record["count"][0])

    @property
    def traffic(self) -> int:
        """Bytes that one update reads or writes."""
        return self._state.traffic * self.parameters.nbytes

    def apply(self, gradient: np.ndarray, fetched_count: int) -> None:
        """Apply a gradient, shape (interval.size,), computed from parameters fetched at `fetched_count`. Local."""
        staleness = self.count - fetched_count
        self._state.apply(self.parameters, gradient)
        # The count moves last: who reads it finds the update that it stands for.
        self._record["staleness_sum"] += staleness
        self._record["staleness_max"] = max(staleness, int(self._record["staleness_max"][0]))
        self._record["count"] += 1
        self._window.sync()
