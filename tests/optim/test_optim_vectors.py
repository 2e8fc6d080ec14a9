"""Commands on named vectors against NumPy, whole and cut into intervals."""

import numpy as np
import pytest

from distbelief.optim import Vectors
from distbelief.optim.space import Combine, Dots, Fill, Multiply, Swap, axpy, copy, scale

NAMES = ("parameters", "gradient", "a", "b")


@pytest.fixture(params=[np.float32, np.float64])
def vectors(request):
    made = Vectors(NAMES, 7, request.param)
    random = np.random.default_rng(1)
    for name in NAMES:
        made[name][:] = random.integers(-9, 10, 7)
    return made


def snapshot(vectors):
    return {name: vectors[name].copy() for name in NAMES}


def test_new_vectors_are_zero_and_of_the_dtype():
    for dtype in (np.float32, np.float64):
        vectors = Vectors(NAMES, 5, dtype)
        assert all((vectors[name] == np.zeros(5)).all() and vectors[name].dtype == dtype for name in NAMES)


@pytest.mark.parametrize(
    ("command", "changed", "value"),
    [
        (Combine("a", (2, -3), ("a", "b")), "a", lambda v: 2 * v["a"] - 3 * v["b"]),
        (Combine("a", (), ()), "a", lambda v: 0 * v["a"]),
        (Multiply("a", "a", "b"), "a", lambda v: v["a"] * v["b"]),
        (Multiply("gradient", "a", "a"), "gradient", lambda v: v["a"] ** 2),
        (Fill("b", 2.5), "b", lambda v: np.full(7, 2.5)),
        (copy("parameters", "a"), "parameters", lambda v: v["a"]),
        (scale("a", -0.5), "a", lambda v: -0.5 * v["a"]),
        (axpy("a", 4, "b"), "a", lambda v: v["a"] + 4 * v["b"]),
    ],
    ids=["combine", "combine nothing", "multiply", "square", "fill", "copy", "scale", "axpy"],
)
def test_a_command_changes_its_target_alone(vectors, command, changed, value):
    before = snapshot(vectors)
    assert vectors.run([command]) == []
    np.testing.assert_array_equal(vectors[changed], value(before))
    for name in set(NAMES) - {changed}:
        np.testing.assert_array_equal(vectors[name], before[name])


def test_dots_answer_in_order_and_in_float64(vectors):
    before = snapshot(vectors)
    answers = vectors.run([Dots(("a", "b"), ("gradient", "a", "b")), Fill("a", 1), Dots(("a",), ("parameters",))])
    assert [answer.shape for answer in answers] == [(2, 3), (1, 1)]
    assert all(answer.dtype == np.float64 for answer in answers)
    expected = [[before[r] @ before[c] for c in ("gradient", "a", "b")] for r in ("a", "b")]
    np.testing.assert_array_equal(answers[0], expected)
    assert answers[1] == before["parameters"].sum()


def test_a_swap_exchanges_what_names_stand_for_and_moves_nothing(vectors):
    a, b = vectors["a"], vectors["b"]
    vectors.run([Swap("a", "b")])
    assert np.shares_memory(vectors["a"], b) and np.shares_memory(vectors["b"], a)
    before = snapshot(vectors)
    vectors.run([axpy("a", 2, "b"), Swap("b", "a")])
    np.testing.assert_array_equal(vectors["b"], before["a"] + 2 * before["b"])
    np.testing.assert_array_equal(vectors["a"], before["b"])


def test_the_parameters_are_never_swapped(vectors):
    for names in (("parameters", "a"), ("a", "parameters")):
        with pytest.raises(AssertionError):
            vectors.run([Swap(*names)])


def test_a_given_vector_is_worked_on_in_place():
    window = np.arange(10, dtype=np.float32)
    vectors = Vectors(NAMES, 4, np.float32, {"parameters": window[3:7]})
    vectors.run([copy("a", "parameters"), scale("parameters", 2)])
    np.testing.assert_array_equal(window, [0, 1, 2, 6, 8, 10, 12, 7, 8, 9])
    np.testing.assert_array_equal(vectors["a"], [3, 4, 5, 6])


@pytest.mark.parametrize("given", [np.zeros(3, np.float32), np.zeros(4)])
def test_a_given_vector_of_another_shape_or_dtype_is_refused(given):
    with pytest.raises(AssertionError):
        Vectors(NAMES, 4, np.float32, {"parameters": given})


def test_answers_of_intervals_add_up_to_those_of_the_whole(vectors):
    program = [axpy("a", 0.5, "b"), Dots(("a", "gradient"), NAMES), Swap("a", "b"), Dots(("b",), ("b",))]
    parts = []
    for start, stop in ((0, 3), (3, 4), (4, 4), (4, 7)):
        part = Vectors(NAMES, stop - start, vectors["a"].dtype)
        for name in NAMES:
            part[name][:] = vectors[name][start:stop]
        parts.append(part)
    answers = [part.run(program) for part in parts]
    for whole, *pieces in zip(vectors.run(program), *answers, strict=True):
        np.testing.assert_array_equal(whole, sum(pieces))
    for name in NAMES:
        np.testing.assert_array_equal(vectors[name], np.concatenate([part[name] for part in parts]))
