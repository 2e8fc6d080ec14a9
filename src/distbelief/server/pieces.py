"""The pieces that travel between a client and the shards, each by itself: layer by layer, and large ones in parts.

A piece is the unit of everything that moves: it is fetched, brought in, checked, rounded, pushed and applied at once,
while it is in the cache.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from distbelief.server.placement import Interval, Placement

# Elements. A smaller interval joins its neighbour: a message costs as much as some ten thousand numbers.
LEAST = 1 << 16
# A larger one is cut: what has been received of a piece should still be in the (third-level) cache when it is applied.
MOST = 1 << 19


class Piece(NamedTuple):
    """Elements start..stop-1 of the flat parameter vector, which one shard holds.

    offset: where they begin in the client's own vector, that of its intervals one after the other.
    """

    shard: int
    start: int
    stop: int
    offset: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def of(self, vector: np.ndarray) -> np.ndarray:
        """The piece of a client's vector: a view."""
        return vector[self.offset : self.offset + self.size]


def cut(placement: Placement, intervals: Iterable[Interval]) -> list[Piece]:
    """The pieces of a client that holds `intervals`, in order.

    Intervals that follow each other in the flat vector share a piece if one of them is small; otherwise no piece is of
    two of them.
    """
    pieces, offset = [], 0
    for shard, (start, stop) in placement.intersect(_joined(intervals)):
        parts = -(-(stop - start) // MOST)
        bounds = [start + part * (stop - start) // parts for part in range(parts + 1)]
        for begin, end in zip(bounds, bounds[1:], strict=False):
            pieces.append(Piece(shard, begin, end, offset))
            offset += end - begin
    return pieces


def side_by_side(pieces: Sequence[Piece], numbers: Iterable[int]) -> list[list[int]]:
    """`numbers` in runs of pieces that follow each other on one shard, and so in the client's vector."""
    runs: list[list[int]] = []
    last = None
    for number in numbers:
        piece = pieces[number]
        # In the client's vector each piece begins where the one before it ends.
        if last and number == runs[-1][-1] + 1 and last.stop == piece.start and last.shard == piece.shard:
            runs[-1].append(number)
        else:
            runs.append([number])
        last = piece
    return runs


def _joined(intervals: Iterable[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for interval in intervals:
        last = joined[-1] if joined else None
        if last and last.stop == interval.start and min(last.size, interval.size) < LEAST:
            joined[-1] = Interval(last.start, interval.stop)
        else:
            joined.append(interval)
    return joined
