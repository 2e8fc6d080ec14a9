"""Data of a user's own: who gets which examples, and what is no data."""

import numpy as np
import pytest
import scipy.sparse

from distbelief import ArrayData, UserError
from distbelief.adapters import data as adapters_data
from distbelief.adapters.data import UserProblem
from distbelief.adapters.trial import try_out
from distbelief.nn import Layout

EXAMPLES, HELD_OUT = 103, 13


class Anything:
    """A model that is never asked anything."""

    layout = Layout({"w": (1,)})

    def initialise(self, parameters, seed): ...

    def gradient(self, parameters, batch, gradient): ...


def a_problem(data=None, held_out=HELD_OUT, **settings) -> UserProblem:
    """Example i is (i, 2 i)."""
    numbers = np.arange(EXAMPLES)
    return UserProblem(Anything(), (numbers, 2 * numbers) if data is None else data, held_out=held_out, **settings)


def numbers(batches) -> list[int]:
    """The examples in `batches`, checking that what belongs together came together."""
    seen = []
    for batch in batches:
        first, second = batch.content
        assert batch.size == len(first)
        np.testing.assert_array_equal(second, 2 * first)
        np.testing.assert_array_equal(batch.rows, first)
        seen += first.tolist()
    return seen


@pytest.mark.parametrize("replicas", [1, 2, 7, EXAMPLES - HELD_OUT])
def test_every_training_example_is_in_one_replicas_part_and_none_is_held_out(replicas):
    problem = a_problem(batch=8)
    parts = [numbers(problem.batches(replica, replicas).epoch(0)) for replica in range(replicas)]
    held_out = numbers(problem.held_out())
    assert len(held_out) == HELD_OUT and problem.training_examples == EXAMPLES - HELD_OUT
    assert sorted([*held_out, *(number for part in parts for number in part)]) == list(range(EXAMPLES))


def test_epochs_and_replicas_have_orders_of_their_own():
    problem = a_problem()
    first, second = (numbers(problem.batches(0, 2).epoch(epoch)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) and first != second and first != sorted(first)
    assert numbers(a_problem().batches(0, 2).epoch(1)) == second
    other = numbers(problem.batches(1, 2).epoch(0))
    assert np.argsort(first).tolist() != np.argsort(other).tolist()


def test_batches_have_their_size():
    assert [batch.size for batch in a_problem(batch=8).batches(0, 1).epoch(0)] == [8] * 11 + [2]


@pytest.mark.parametrize(("batch", "sizes"), [(8, [250, 250, 100]), (300, [300, 300])])
def test_evaluations_come_in_batches_that_are_worth_a_pause(batch, sizes):
    assert adapters_data.EVALUATION_BATCH == 250
    data = (np.arange(700), 2 * np.arange(700))
    assert [b.size for b in a_problem(data, held_out=600, batch=batch).held_out()] == sizes


@pytest.mark.parametrize(("examples", "held_out"), [(103, 10), (5, 1), (2, 1)])
def test_one_in_ten_is_held_out_unless_told(examples, held_out):
    problem = a_problem(np.arange(examples), held_out=None)
    assert problem.training_examples == examples - held_out


def test_other_data_may_be_held_out():
    other = np.arange(1000, 1007)
    problem = a_problem(held_out=(other, 2 * other))
    assert problem.training_examples == EXAMPLES
    (batch,) = problem.held_out()
    np.testing.assert_array_equal(batch.content[0], other)


def test_arrays_of_many_kinds(tmp_path):
    dense = np.arange(40.0).reshape(20, 2)
    np.save(tmp_path / "mapped.npy", dense)
    mapped = np.load(tmp_path / "mapped.npy", mmap_mode="r")
    sparse = scipy.sparse.csr_array(dense)
    data = ArrayData(dense, mapped, sparse, dense.tolist())
    assert len(data) == 20
    batch = data[np.array([7, 3])]
    for array in (*batch[:2], batch[2].toarray(), batch[3]):
        np.testing.assert_array_equal(array, dense[[7, 3]])


def test_more_replicas_than_training_examples():
    with pytest.raises(UserError, match="90 training examples for 91 replicas"):
        a_problem().batches(0, 91)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None.__class__, "data: a type, expected a tuple of arrays, or a length and an index"),
        (iter([1]), "data: a list_iterator, expected"),
        ([np.zeros(3), np.zeros(3)], "data: a list, expected a tuple of arrays"),
        (np.zeros((0, 3)), "data: no examples, expected at least one"),
        ((), "data: no arrays, expected at least one"),
        ((np.zeros(3), np.float64(1)), r"data: arrays of shapes \(3,\), \(\), expected as many rows in each"),
        ((np.zeros((3, 2)), np.zeros(4)), r"data: arrays of shapes \(3, 2\), \(4,\), expected as many rows"),
    ],
    ids=["type", "iterator", "list", "no examples", "no arrays", "no rows", "other lengths"],
)
def test_no_data(data, said):
    with pytest.raises(UserError, match=f"^{said}"):
        UserProblem(Anything(), data)


UNUSABLE = {"dict": {"x": 1, "y": 2}, "coo": (scipy.sparse.coo_matrix(np.ones((9, 2))),)}


@pytest.mark.parametrize("data", UNUSABLE.values(), ids=UNUSABLE)
def test_data_that_takes_no_rows(data):
    with pytest.raises(UserError, match=r"^data: \w*Error") as caught:
        try_out(UserProblem(Anything(), data), 0, 1)
    assert "\n" not in str(caught.value)
