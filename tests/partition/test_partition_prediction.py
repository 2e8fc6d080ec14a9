"""Predicted times of steps, where they can be told by hand."""

import pytest
from partition.plain_layers import Taps, chain

from distbelief.nn import Dense, OneVsAllLogistic
from distbelief.partition import predict

LINK = dict(latency=1e-9, bandwidth=1e15, memory_bandwidth=1e15)


def a_second_per_row(layer, position, n):
    return float(layer.shape[0])


def test_one_rank_takes_the_sum_of_its_layers_three_times():
    layers = [Dense("dense0", 5, 12), Dense("dense1", 12, 8)]
    assert predict(layers, 1, 4, a_second_per_row, **LINK) == pytest.approx(3 * (12 + 8), rel=1e-5)


def test_with_links_that_cost_nothing_the_largest_band_counts():
    layers = [Dense("dense0", 5, 12), Dense("dense1", 12, 8)]
    assert predict(layers, 4, 4, a_second_per_row, **LINK) == pytest.approx(3 * (3 + 2), rel=1e-5)
    assert predict(layers, 8, 4, a_second_per_row, **LINK) == pytest.approx(3 * (2 + 1), rel=1e-5)


def test_what_a_dense_layer_waits_for_is_its_input():
    """Two partitions of layers that take no time: half of 1000 numbers of 4 bytes for 10 examples, up and down."""
    layers = [Dense("dense0", 5, 1000), Dense("dense1", 1000, 2)]
    time = predict(layers, 2, 10, lambda *_: 0.0, latency=0.0, bandwidth=1e3, memory_bandwidth=1e15)
    assert time == pytest.approx(2 * 500 * 10 * 4 / 1e3, rel=0.02)


def test_the_interior_is_computed_while_edges_travel():
    """A halo of one row takes 8 s each way; the 49 rows that need none of it, 49 s."""
    layers = chain(
        (101, 1, 1),
        lambda name, below: Taps(name, below, 1, tied=False),
        lambda name, below: Taps(name, below, 2, tied=False),
    )
    settings = dict(loss=OneVsAllLogistic(), latency=0.0, bandwidth=0.5, memory_bandwidth=1e15)
    time = predict(layers, 2, 1, a_second_per_row, **settings)
    assert time == pytest.approx(3 * (51 + 50), rel=0.05)


def test_more_partitions_than_rows_wait():
    layers = [Dense("dense0", 5, 4), Dense("dense1", 4, 16)]
    assert predict(layers, 16, 4, a_second_per_row, **LINK) == pytest.approx(3 * (1 + 1), rel=1e-5)
