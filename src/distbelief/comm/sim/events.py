"""The one event queue: everything that will happen, in the order of virtual time."""

import heapq
import math
from collections.abc import Callable
from typing import Any


class TimeLimit(RuntimeError):
    """Virtual time passed the limit of the cluster: most likely ranks that poll for ever."""


class EventQueue:
    """Callbacks ordered by (time, sequence number): of two events at one moment the older entry comes first.

    An entry is a list [time, sequence, callback, arguments]; a cancelled one has no callback. Most timeouts
    are cancelled long before they are due, so the cancelled entries are swept out once they are the majority:
    otherwise a minute of deadlines would pile up in the heap.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.now = 0.0
        self.count = 0
        """How many events have happened so far."""
        self._limit = limit
        self._heap: list[list[Any]] = []
        self._sequence = 0
        self._cancelled = 0
        self._stopped = False

    def at(self, time: float, callback: Callable[..., None], *arguments: Any) -> list[Any]:
        """Have `callback(*arguments)` called at `time` seconds; returns the entry, for `cancel`."""
        self._sequence += 1
        entry = [time, self._sequence, callback, arguments]
        heapq.heappush(self._heap, entry)
        return entry

    def cancel(self, entry: list[Any]) -> None:
        """Make an entry of the future never happen."""
        entry[2] = None
        entry[3] = ()
        self._cancelled += 1
        if self._cancelled > 100 and 2 * self._cancelled > len(self._heap):
            self._heap = [kept for kept in self._heap if kept[2] is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def skip_to(self, time: float) -> bool:
        """Move the clock to `time` if nothing would happen up to then. False, and nothing done, otherwise.

        This saves a rank that only lets time pass the way through the heap and back.
        """
        if (self._heap and self._heap[0][0] <= time) or time > self._limit:
            return False
        self.now = time
        self.count += 1
        return True

    def run(self) -> bool:
        """Let events happen until `stop`; False if none is left. Raises TimeLimit past the limit."""
        self._stopped = False
        while not self._stopped:
            if not self._heap:
                return False
            time, _, callback, arguments = heapq.heappop(self._heap)
            if callback is None:
                self._cancelled -= 1
                continue
            if time > self._limit:
                raise TimeLimit(f"virtual time passed the limit of {self._limit:g} s")
            self.now = time
            self.count += 1
            callback(*arguments)
        return True

    def stop(self) -> None:
        """Have `run` return after the event that happens now."""
        self._stopped = True
