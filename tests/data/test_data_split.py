import numpy as np
import pytest

from distbelief.data import held_out, part
from distbelief.data.shuffle import random_order
from distbelief.errors import UserError


def test_orders_never_change():
    """Written down once: runs of today must be repeatable with any later NumPy, on any machine."""
    assert random_order(8, 7, 0, 0).tolist() == [3, 1, 4, 5, 0, 2, 6, 7]
    assert random_order(8, 7, 0, 1).tolist() == [3, 2, 1, 5, 7, 4, 0, 6]


def test_an_order_is_a_permutation():
    order = random_order(1000, 3, 1)
    assert order.dtype == np.int64 and np.sort(order).tolist() == list(range(1000))
    assert random_order(0, 3).tolist() == []


def test_keys_are_not_padded_with_zeros():
    """SeedSequence([7]) and SeedSequence([7, 0]) are the same; keys of ours must not be."""
    keys = [(7,), (7, 0), (7, 0, 0), (7, 0, 0, 0), (7, 0, 0, 1), (7, 0, 1), (7, 1), (7, 1, 0), (2**32 + 7, 0)]
    assert len({tuple(random_order(20, *key)) for key in keys}) == len(keys)


def test_places_are_taken_evenly():
    """Index 0 lands in each of 5 places about as often: chi-square, 4 degrees of freedom, 0.1 % point 18.5."""
    places = [int(np.flatnonzero(random_order(5, 0, key) == 0)[0]) for key in range(2000)]
    counts = np.bincount(places, minlength=5)
    assert ((counts - 400) ** 2 / 400).sum() < 18.5


@pytest.mark.parametrize("count", [0, 1, 30, 99])
def test_held_out_and_the_rest_are_sorted_disjoint_and_everything(count):
    train, aside = held_out(100, count, seed=4)
    assert train.dtype == aside.dtype == np.int64 and len(aside) == count
    assert (np.diff(train) > 0).all() and (np.diff(aside) > 0).all()
    assert sorted([*train, *aside]) == list(range(100))


def test_held_out_goes_by_the_seed():
    choices = [held_out(100, 10, seed)[1].tolist() for seed in (4, 4, 5)]
    assert choices[0] == choices[1] != choices[2]


@pytest.mark.parametrize("count", [100, 101, -1])
def test_held_out_leaves_something_to_train_on(count):
    with pytest.raises(UserError, match=rf"data\.held_out: {count}, expected 0 to 99"):
        held_out(100, count, seed=4)


@pytest.mark.parametrize("replicas", [1, 3, 10])
def test_parts_cover_the_indices_evenly(replicas):
    indices = np.arange(5, 15)
    parts = [part(indices, replica, replicas) for replica in range(replicas)]
    assert sorted(np.concatenate(parts)) == indices.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_of_a_file_sorted_by_class_hold_every_class():
    labels = np.repeat(np.arange(10), 8)
    for replica in range(4):
        assert set(labels[part(np.arange(80), replica, 4)]) == set(range(10))


def test_an_empty_part_is_refused_on_every_replica():
    for replica in range(4):
        with pytest.raises(UserError, match="3 training examples for 4 replicas"):
            part(np.arange(3), replica, 4)
