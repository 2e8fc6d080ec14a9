"""A shard: an interval of the parameters, its update rule's state, and a record of its updates."""

from collections.abc import Sequence

import numpy as np

from distbelief.comm.endpoint import Window
from distbelief.kernels import compensate, narrow
from distbelief.optim import Rule
from distbelief.server.messages import BUCKETS, RECORD
from distbelief.server.placement import Interval
from distbelief.server.settings import Server
from distbelief.server.staleness import Compensated, Scaled

THROUGH_CLOCK = np.iinfo(np.int64).max  # nobody waits for a replica that is through


class Shard:
    """Holds its parameters in a window, so that readers cost it nothing, and updates them in place.

    The window: a RECORD, the parameters, and for a bfloat16 wire their shadow (uint16).
    """

    def __init__(
        self,
        interval: Interval,
        values: np.ndarray,
        rule: Rule,
        window: Window,
        settings: Server | None = None,
        clocks: Sequence[int] = (0,),
    ):
        """`values`: the interval's first parameters, shape (interval.size,). Local.

        `clocks`: of each replica, before its first push.
        """
        settings = settings or Server()
        self.interval = interval
        self._window = window
        self._record = window.local[: RECORD.itemsize].view(RECORD)[0]
        exposed = window.local[RECORD.itemsize :]
        self.parameters = exposed[: values.nbytes].view(values.dtype)
        self.parameters[:] = values
        self._shadow = None
        if settings.fetch_wire == "bfloat16":
            self._shadow = exposed[values.nbytes :].view(np.uint16)
            narrow(self.parameters, self._shadow)
        self._state = rule.state(interval.size, values.dtype)
        self._schedule = settings.schedule
        self._staleness = settings.staleness
        self._fetched: dict[int, np.ndarray] = {}  # by replica, for delay compensation
        self._clocks = np.array(clocks, np.int64)
        window.sync()

    @staticmethod
    def window_bytes(interval: Interval, dtype: np.dtype, settings: Server | None = None) -> int:
        """How large the window of a shard of `interval` must be."""
        shadowed = settings is not None and settings.fetch_wire == "bfloat16"
        return RECORD.itemsize + interval.size * (np.dtype(dtype).itemsize + (2 if shadowed else 0))

    @property
    def count(self) -> int:
        """Updates applied so far."""
        return int(self._record["count"])

    @property
    def traffic(self) -> int:
        """Bytes that one update reads or writes."""
        return self._state.traffic * self.parameters.nbytes

    def apply(self, gradient: np.ndarray, fetched_count: int, replica: int = 0, clock: int = 0) -> None:
        """Apply a gradient, shape (interval.size,), computed from parameters fetched at `fetched_count`. Local.

        `clock`: how far the replica has come.
        """
        stale = self.count - fetched_count
        factor = self._schedule.factor(self.count)
        if isinstance(self._staleness, Scaled):
            factor /= max(stale, 1)
        if isinstance(self._staleness, Compensated) and replica in self._fetched:
            corrected = np.empty_like(self.parameters)
            compensate(gradient, self.parameters, self._fetched[replica], self._staleness.strength, corrected)
            gradient = corrected
        self._state.apply(self.parameters, gradient, factor, self._shadow)
        # The count moves last: who reads it finds the update that it stands for.
        self._record["staleness_sum"] += stale
        self._record["staleness_max"] = max(stale, int(self._record["staleness_max"]))
        self._record["staleness_histogram"][min(max(stale, 0), BUCKETS - 1)] += 1
        self._set_clock(replica, clock)
        self._record["count"] += 1
        self._window.sync()

    def remember(self, replica: int) -> None:
        """A replica fetches: keep what it reads, if gradients are to be corrected by it. Local."""
        if isinstance(self._staleness, Compensated):
            np.copyto(self._fetched.setdefault(replica, np.empty_like(self.parameters)), self.parameters)

    def part_with(self, replica: int) -> None:
        """A replica is through: nobody waits for it any more. Local."""
        self._fetched.pop(replica, None)
        self._set_clock(replica, THROUGH_CLOCK)
        self._window.sync()

    def refuse(self) -> None:
        """Count a message that could not be taken. Local."""
        self._record["refused"] += 1

    def _set_clock(self, replica: int, clock: int) -> None:
        self._clocks[replica] = clock
        self._record["slowest"] = self._clocks.min()
