"""Which shard holds what: intervals of the flat parameter vector."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Interval(NamedTuple):
    """Elements start..stop-1 of the flat parameter vector."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Placement:
    """Shard s of S holds the s-th of S intervals that differ by at most one element."""

    def __init__(self, size: int, shards: int):
        if not 0 < shards <= size:
            raise ValueError(f"{shards} shards for {size} parameters")
        bounds = [shard * size // shards for shard in range(shards + 1)]
        self.size = size
        self.intervals = [Interval(*pair) for pair in zip(bounds, bounds[1:], strict=False)]

    def __len__(self) -> int:
        return len(self.intervals)

    def intersect(self, intervals: Iterable[Interval]) -> Iterator[tuple[int, Interval]]:
        """The parts of `intervals`, in their order, each with the one shard that holds it; none that is empty."""
        for start, stop in intervals:
            shard = start * len(self) // self.size  # its own, or the one before
            while start < stop:
                end = self.intervals[shard].stop
                if end > start:
                    yield shard, Interval(start, min(stop, end))
                    start = min(stop, end)
                shard += 1
