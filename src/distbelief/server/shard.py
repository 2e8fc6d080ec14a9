"""A shard: an interval of the parameters, its update rule's state, and a record of its updates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distbelief.comm.endpoint import Window
from distbelief.kernels import compensate, narrow
from distbelief.optim import Rule
from distbelief.server.exposed import MARKS, Exposed
from distbelief.server.messages import BUCKETS, RECORD
from distbelief.server.placement import Interval
from distbelief.server.settings import Server
from distbelief.server.staleness import Compensated, Scaled

THROUGH_CLOCK = np.iinfo(np.int64).max  # nobody waits for a replica that is through


class _Update(NamedTuple):
    """A push of which not all pieces have come: what its first piece has settled for all."""

    sequence: int
    stale: int
    factor: float


class Shard:
    """Holds its parameters in a window (server.exposed), so that readers cost it nothing, and updates them in place."""

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
        exposed = Exposed.by(settings, interval.size, values.dtype, len(clocks))
        self._record = window.local[: RECORD.itemsize].view(RECORD)[0]
        self._marks = window.local[exposed.begun(0) : exposed.begun(len(clocks))].view(MARKS)
        self.parameters = window.local[exposed.parameters : exposed.shadow].view(values.dtype)
        self.parameters[:] = values
        self._shadow = None
        if exposed.shadowed:
            self._shadow = window.local[exposed.shadow : exposed.nbytes].view(np.uint16)
            narrow(self.parameters, self._shadow)
        self._state = rule.state(interval.size, values.dtype)
        self._schedule = settings.schedule
        self._staleness = settings.staleness
        self._fetched: dict[int, np.ndarray] = {}  # by replica, for delay compensation
        self._clocks = np.array(clocks, np.int64)
        self._updates: dict[int, _Update] = {}  # by replica
        window.sync()

    @staticmethod
    def window_bytes(interval: Interval, dtype: np.dtype, settings: Server | None = None, clients: int = 1) -> int:
        """How large the window of a shard of `interval` must be."""
        return Exposed.by(settings or Server(), interval.size, dtype, clients).nbytes

    @property
    def count(self) -> int:
        """Updates applied so far."""
        return int(self._record["count"])

    @property
    def clients(self) -> int:
        """How many may push."""
        return self._clocks.size

    def traffic(self, size: int) -> int:
        """Bytes that an update of so many parameters reads or writes."""
        return self._state.traffic * size * self.parameters.itemsize

    def apply(
        self,
        gradient: np.ndarray,
        fetched_count: int,
        replica: int = 0,
        clock: int = 0,
        sequence: int = 0,
        start: int | None = None,
        mark: int = 0,
        last: bool = True,
    ) -> None:
        """Apply a piece of a gradient, computed from parameters fetched at `fetched_count`. Local.

        `clock`: how far the replica has come; `sequence`: of its pushes; `start`: where the piece begins, None for the
        interval's beginning; `mark`: of its pieces; `last`: nothing follows of this push, which now counts as an
        update. The staleness of a push, and with it the rate, is that of its first piece.
        """
        update = self._updates.get(replica)
        if update is None or update.sequence != sequence:
            update = self._updates[replica] = self._begin(sequence, self.count - fetched_count)
        begin = 0 if start is None else start - self.interval.start
        here = slice(begin, begin + gradient.size)
        parameters = self.parameters[here]
        if isinstance(self._staleness, Compensated) and replica in self._fetched:
            corrected = np.empty_like(parameters)
            compensate(gradient, parameters, self._fetched[replica][here], self._staleness.strength, corrected)
            gradient = corrected
        # Who reads meanwhile finds a mark that has begun and is not applied.
        self._marks["begun"][replica] = mark
        self._window.sync()
        shadow = None if self._shadow is None else self._shadow[here]
        self._state.part(here.start, here.stop).apply(parameters, gradient, update.factor, shadow)
        self._window.sync()
        # This mark moves after what it stands for; so does the count.
        self._marks["applied"][replica] = mark
        if last:
            self._count(self._updates.pop(replica))
            self._set_clock(replica, clock)
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

    def _begin(self, sequence: int, stale: int) -> _Update:
        factor = self._schedule.factor(self.count)
        if isinstance(self._staleness, Scaled):
            factor /= max(stale, 1)
        return _Update(sequence, stale, factor)

    def _count(self, update: _Update) -> None:
        self._record["staleness_sum"] += update.stale
        self._record["staleness_max"] = max(update.stale, int(self._record["staleness_max"]))
        self._record["staleness_histogram"][min(max(update.stale, 0), BUCKETS - 1)] += 1
        self._record["count"] += 1

    def _set_clock(self, replica: int, clock: int) -> None:
        self._clocks[replica] = clock
        self._record["slowest"] = self._clocks.min()
