"""The pieces that travel: intersections with shards, small neighbours together, large ones in parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbelief.server import Interval, Piece, Placement
from distbelief.server.pieces import LEAST, MOST, cut, side_by_side


@given(st.integers(1, 60).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size))), st.data())
def test_an_intersection_has_every_element_once_with_the_shard_that_holds_it(sizes, data):
    size, shards = sizes
    bounds = sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=8).filter(lambda b: len(b) % 2 == 0)))
    intervals = [Interval(*bounds[i : i + 2]) for i in range(0, len(bounds), 2)]
    placement = Placement(size, shards)
    parts = list(placement.intersect(intervals))
    assert [i for _, part in parts for i in range(*part)] == [i for interval in intervals for i in range(*interval)]
    for shard, part in parts:
        held = placement.intervals[shard]
        assert held.start <= part.start < part.stop <= held.stop


def pieces_of(tensors, shards=1):
    bounds = np.cumsum([0, *tensors]).tolist()
    intervals = [Interval(*pair) for pair in zip(bounds, bounds[1:], strict=False)]
    return cut(Placement(bounds[-1], shards), intervals)


@pytest.mark.parametrize(
    ("tensors", "sizes"),
    [
        ([10, 5, 200, 20], [235]),  # a small network is one message
        ([LEAST, 5, LEAST, 5], [LEAST + 5, LEAST + 5]),  # weights with their biases
        ([5, LEAST, LEAST], [LEAST + 5, LEAST]),
        ([LEAST // 2, LEAST // 2 - 1, LEAST], [2 * LEAST - 1]),
        ([MOST], [MOST]),
        ([3 * MOST - 3], [MOST - 1] * 3),
    ],
)
def test_small_neighbours_share_a_piece_and_large_ones_are_cut(tensors, sizes):
    assert [piece.size for piece in pieces_of(tensors)] == sizes


def test_shards_cut_pieces():
    assert pieces_of([10, 5], shards=2) == [Piece(0, 0, 7, 0), Piece(1, 7, 15, 7)]


def test_the_own_vector_is_that_of_the_intervals_one_after_the_other():
    pieces = cut(Placement(100, 4), [Interval(60, 80), Interval(10, 12), Interval(12, 14)])
    assert pieces == [Piece(2, 60, 75, 0), Piece(3, 75, 80, 15), Piece(0, 10, 14, 20)]
    own = np.arange(24)
    assert [piece.of(own).tolist() for piece in pieces] == [
        list(range(15)),
        list(range(15, 20)),
        list(range(20, 24)),
    ]


def test_runs_end_where_a_piece_is_left_out_another_shard_begins_or_another_interval():
    pieces = cut(Placement(6 * MOST, 2), [Interval(0, 4 * MOST), Interval(5 * MOST, 6 * MOST)])
    assert [(piece.shard, piece.start // MOST) for piece in pieces] == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 5)]
    assert side_by_side(pieces, range(5)) == [[0, 1, 2], [3], [4]]
    assert side_by_side(pieces, [0, 2, 3]) == [[0], [2], [3]]
    assert side_by_side(pieces, []) == []
