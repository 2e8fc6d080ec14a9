"""A shard: an interval of the parameters, its update rule's state, and a record of its updates."""

from collections.abc import Callable, Sequence

import numpy as np

from distbelief.comm.endpoint import Window
from distbelief.kernels import compensate, narrow
from distbelief.optim import Rule
from distbelief.server.exposed import MARKS, Exposed
from distbelief.server.messages import RECORD, bucket
from distbelief.server.placement import Interval
from distbelief.server.settings import Server
from distbelief.server.staleness import Compensated, Scaled
from distbelief.server.wire import BFLOAT16

NEVER = np.iinfo(np.int64).max  # the clock of a client that does not push, or no more: nobody waits for it


class _Update:
    """A replica's push of which not all pieces have come: what its first piece has settled for all."""

    def __init__(self, stale: int, factor: float, missing: int):
        """`missing`: clients of the replica that are not through with it."""
        self.stale = stale
        self.factor = factor
        self.missing = missing


class Shard:
    """Holds its parameters in a window (server.exposed), so that readers cost it nothing, and updates them in place."""

    def __init__(
        self,
        interval: Interval,
        values: np.ndarray | np.dtype,
        rule: Rule,
        window: Window,
        settings: Server | None = None,
        clocks: Sequence[int] = (0,),
        partitions: int = 1,
    ):
        """`values`: the interval's first parameters, shape (interval.size,); or only their type, and they are left to
        `begin`. Local.

        `clocks`: of each client, before its first push; NEVER of one that has nothing of this interval. `partitions`:
        clients that are one replica, one after the other in number: what they push in one step is one update.
        """
        settings = settings or Server()
        self.interval = interval
        self._window = window
        dtype = values.dtype if isinstance(values, np.ndarray) else np.dtype(values)
        exposed = Exposed.by(settings, interval.size, dtype, len(clocks))
        self._record = window.local[: RECORD.itemsize].view(RECORD)[0]
        self._marks = window.local[exposed.begun(0) : exposed.begun(len(clocks))].view(MARKS)
        self.parameters = exposed.numbers(window.local, dtype)
        self._shadow = exposed.numbers(window.local, BFLOAT16) if exposed.shadowed else None
        self._state = rule.state(interval.size, dtype)
        self._schedule = settings.schedule
        self._staleness = settings.staleness
        # For delay compensation: what each client has read in its last two fetches, by where it begins, each with the
        # count of that moment. While one is under way, gradients are still those of the one before.
        self._fetched: list[dict[int, list[tuple[int, np.ndarray]]]] = [{} for _ in clocks]
        self._clocks = np.array(clocks, np.int64)
        self._partitions = partitions
        self._pushers = int((self._clocks[:partitions] != NEVER).sum())
        self._updates: dict[tuple[int, int], _Update] = {}  # by replica and sequence
        if isinstance(values, np.ndarray):
            self.begin(lambda parameters: np.copyto(parameters, values))

    def begin(self, fill: Callable[[np.ndarray], None]) -> None:
        """`fill` the parameters, shape (interval.size,), in their place. Local."""
        fill(self.parameters)
        if self._shadow is not None:
            narrow(self.parameters, self._shadow)
        self._window.sync()

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

    def memory_of(self, rank: int) -> np.ndarray | None:
        """All that `rank` exposes in the window, uint8, if it lies in this process too."""
        return self._window.memory(rank)

    def traffic(self, size: int) -> int:
        """Bytes that an update of so many parameters reads or writes."""
        return self._state.traffic * size * self.parameters.itemsize

    def apply(
        self,
        gradient: np.ndarray,
        fetched_count: int,
        client: int = 0,
        clock: int = 0,
        sequence: int = 0,
        start: int | None = None,
        mark: int = 0,
        last: bool = True,
    ) -> None:
        """Apply a piece of a gradient, computed from parameters fetched at `fetched_count`. Local.

        `clock`: how far the client has come; `sequence`: of its pushes; `start`: where the piece begins, None for the
        interval's beginning; `mark`: of its pieces; `last`: nothing follows of this push. When so it is of all clients
        of its replica, it counts as an update. Its staleness, and with it the rate, is that of its first piece.
        """
        push = client // self._partitions, sequence
        update = self._updates.get(push)
        if update is None:
            update = self._updates[push] = self._begin(push, self.count - fetched_count)
        begin = 0 if start is None else start - self.interval.start
        here = slice(begin, begin + gradient.size)
        parameters = self.parameters[here]
        copies = self._fetched[client].get(self.interval.start + begin)
        if copies:
            fetched = min(copies, key=lambda copy: abs(copy[0] - fetched_count))[1]
            corrected = np.empty_like(parameters)
            compensate(gradient, parameters, fetched, self._staleness.strength, corrected)
            gradient = corrected
        # Who reads meanwhile finds a mark that has begun and is not applied.
        self._marks["begun"][client] = mark
        self._window.sync()
        shadow = None if self._shadow is None else self._shadow[here]
        self._state.part(here.start, here.stop).apply(parameters, gradient, update.factor, shadow)
        self._window.sync()
        # This mark moves after what it stands for; so does the count.
        self._marks["applied"][client] = mark
        if last:
            update.missing -= 1
            if update.missing == 0:
                self._count(self._updates.pop(push))
            self._set_clock(client, clock)
        self._window.sync()

    def remember(self, client: int, start: int, stop: int) -> None:
        """A client fetches a piece of the interval: keep what it reads, if gradients are corrected by it. Local."""
        if isinstance(self._staleness, Compensated):
            here = self.parameters[start - self.interval.start : stop - self.interval.start]
            copies = self._fetched[client].setdefault(start, [])
            values = copies.pop(0)[1] if len(copies) == 2 else np.empty_like(here)
            np.copyto(values, here)
            copies.append((self.count, values))

    def part_with(self, client: int) -> None:
        """A client is through: nobody waits for it any more. Local."""
        self._fetched[client].clear()
        if client < self._partitions:  # those that have waited for replica 0 start now, with its clock
            waiting = (self._marks["applied"] == 0) & (self._clocks != NEVER)
            np.minimum(self._clocks, self._clocks[client], out=self._clocks, where=waiting)
        self._set_clock(client, NEVER)
        self._window.sync()

    def refuse(self) -> None:
        """Count a message that could not be taken. Local."""
        self._record["refused"] += 1

    def _begin(self, push: tuple[int, int], stale: int) -> _Update:
        replica, sequence = push
        # Its partitions are one step apart at most: what is older, and not complete, never will be.
        for old in [each for each in self._updates if each[0] == replica and each[1] < sequence - 1]:
            del self._updates[old]
        factor = self._schedule.factor(self.count)
        if isinstance(self._staleness, Scaled):
            factor /= max(stale, 1)
        return _Update(stale, factor, self._pushers)

    def _count(self, update: _Update) -> None:
        self._record["staleness_sum"] += update.stale
        self._record["staleness_max"] = max(update.stale, int(self._record["staleness_max"]))
        self._record["staleness_histogram"][bucket(update.stale)] += 1
        self._record["count"] += 1

    def _set_clock(self, client: int, clock: int) -> None:
        self._clocks[client] = clock
        self._record["slowest"] = self._clocks.min()
