"""The cut of a network: bands, messages, refusals; and that what travels is what has to."""

import numpy as np
import pytest
from partition.cut_networks import a_batch, on_partitions
from partition.some_networks import NETWORKS, dense

from distbelief.errors import UserError
from distbelief.nn.interval import Interval
from distbelief.partition import Plan
from distbelief.partition.peers import BACKWARD, FORWARD
from distbelief.partition.plan import bands


def needed_elsewhere(plan):
    """Brute force: all (layer, row, partition) where the partition needs a row that it does not compute."""
    found = set()
    for number in range(len(plan.layers) - 1):
        above = plan.layers[number + 1]
        for dest in range(plan.partitions):
            for row_above in range(*plan.bands[number + 1][dest]):
                for row in range(*above.region(row_above, row_above + 1)):
                    if not plan.bands[number][dest].start <= row < plan.bands[number][dest].stop:
                        found.add((number, row, dest))
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("partitions", [1, 2, 3, 5, 8])
def test_each_row_that_another_partition_needs_is_sent_to_it_once_by_who_has_it(name, partitions):
    plan = Plan(NETWORKS[name]()[0], partitions)
    sent = []
    for number in range(len(plan.layers)):
        for message in plan.messages(number):
            assert message.rows.within(plan.bands[number][message.source])
            sent += [(number, row, message.dest) for row in range(*message.rows)]
    assert len(sent) == len(set(sent))
    assert set(sent) == needed_elsewhere(plan)


@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_that_cross_a_boundary_are_the_least_possible(name):
    """Up, each needed number once; down, its gradient once. Shared tensors and sums for the loss come on top."""
    layers, loss = NETWORKS[name]()
    n, plan = 5, Plan(layers, 4)
    _, peers = on_partitions(layers, 4, [a_batch(layers, n)], loss=loss)
    for number in range(len(layers) - 1):
        rows = [row for layer, row, _ in needed_elsewhere(plan) if layer == number]
        least = len(rows) * plan.row_size(number) * n * 8
        assert least > 0
        assert sum(each.bytes_sent[BACKWARD + number] for each in peers) == least
        # Once for the gradient, once for the score.
        assert sum(each.bytes_sent[FORWARD + number] for each in peers) == 2 * least


def test_bands_end_where_the_cost_is_nearest_to_even():
    assert bands(np.ones(10), 4) == [(0, 3), (3, 5), (5, 8), (8, 10)]
    assert bands(np.ones(7), 1) == [(0, 7)]
    assert bands(np.array([5.0, 1, 1, 1, 1, 1]), 2) == [(0, 1), (1, 6)]


@pytest.mark.parametrize("seed", range(20))
def test_bands_cost_no_more_than_a_fair_part_and_one_row(seed):
    random = np.random.default_rng(seed)
    costs, parts = random.uniform(0.2, 1.0, random.integers(20, 200)), int(random.integers(1, 20))
    found = bands(costs, parts)
    assert [band.start for band in found[1:]] == [band.stop for band in found[:-1]]
    assert (found[0].start, found[-1].stop) == (0, costs.size)
    assert max(costs[slice(*band)].sum() for band in found) <= costs.sum() / parts + costs.max()


def test_even_rows_differ_by_one_at_most():
    for rows in range(1, 40):
        for parts in range(1, rows + 1):
            sizes = [band.size for band in bands(np.ones(rows), parts)]
            assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1, (rows, parts)


def test_a_partition_without_rows_is_refused_with_the_layer_that_is_too_small():
    layers, _ = dense()
    Plan(layers, 9)
    with pytest.raises(UserError, match="10 partitions of layer dense2: it has 9 rows"):
        Plan(layers, 10)


@pytest.mark.parametrize(
    ("first", "second", "common", "hull", "without"),
    [
        ((2, 7), (4, 9), (4, 7), (2, 9), [(2, 4)]),
        ((2, 7), (3, 5), (3, 5), (2, 7), [(2, 3), (5, 7)]),
        ((2, 4), (6, 8), (6, 6), (2, 8), [(2, 4)]),
        ((2, 4), (0, 0), (2, 2), (2, 4), [(2, 4)]),
        ((3, 3), (0, 5), (3, 3), (0, 5), []),
    ],
)
def test_intervals(first, second, common, hull, without):
    first, second = Interval(*first), Interval(*second)
    assert first.common(second) == common
    assert first.hull(second) == hull
    assert first.without(second) == without
    assert first.within(second) == (set(range(*first)) <= set(range(*second)))
