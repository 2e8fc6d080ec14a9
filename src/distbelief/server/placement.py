"""Which shard holds what: intervals of the flat parameter vector."""

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
