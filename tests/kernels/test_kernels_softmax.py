"""Softmax with cross-entropy against SciPy in float64."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from distbelief.kernels import softmax_band, softmax_band_score, softmax_cross_entropy, softmax_score

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
sizes = pytest.mark.parametrize(("classes", "n"), [(1, 1), (2, 1), (10, 7), (17, 13), (3, 64), (5, 1100)])
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14}


def scores(classes, n, dtype, spread=3.0):
    random = np.random.default_rng([classes, n])
    z = (spread * random.standard_normal((classes, n))).astype(dtype)
    z.flags.writeable = False
    return z, random.integers(0, classes, n)


def truth(z, labels):
    """The cross-entropies of the columns, and the gradients by them, in float64."""
    z = z.astype(np.float64)
    onehot = np.arange(len(z))[:, None] == labels
    return -log_softmax(z, axis=0)[labels, np.arange(len(labels))], softmax(z, axis=0) - onehot


def run(z, labels, scale=1.0):
    """The kernel's loss and gradient; what it must overwrite is full of NaN, and scratch is wider than the batch."""
    dz = np.full(z.shape, np.nan, z.dtype)
    loss = softmax_cross_entropy(z, labels, scale, dz, np.full((2, z.shape[1] + 3), np.nan))
    return loss, dz


@sizes
@dtypes
@pytest.mark.parametrize("scale", [1.0, 1 / 7, 2.5])
def test_loss_and_gradient_are_scipys(classes, n, dtype, scale):
    z, labels = scores(classes, n, dtype)
    losses, gradient = truth(z, labels)
    loss, dz = run(z, labels, scale)
    assert loss == pytest.approx(losses.sum(), rel=TOLERANCE[dtype], abs=TOLERANCE[dtype])
    np.testing.assert_allclose(dz, scale * gradient, rtol=0, atol=scale * TOLERANCE[dtype])


@sizes
@dtypes
def test_the_gradient_may_take_the_scores_place(classes, n, dtype):
    z, labels = scores(classes, n, dtype)
    loss, dz = run(z, labels, 1 / 7)
    z = z.copy()
    assert softmax_cross_entropy(z, labels, 1 / 7, z, np.empty((2, n))) == loss
    np.testing.assert_array_equal(z, dz)


def test_gradient_is_the_derivative_of_the_loss():
    z, labels = scores(5, 3, np.float64)
    _, dz = run(z, labels)
    step, differences = 1e-5, np.empty_like(z)
    for place in np.ndindex(z.shape):
        ends = []
        for sign in (1, -1):
            moved = z.copy()
            moved[place] += sign * step
            ends.append(run(moved, labels)[0])
        differences[place] = (ends[0] - ends[1]) / (2 * step)
    assert np.linalg.norm(dz - differences) < 1e-6 * np.linalg.norm(differences)


@dtypes
def test_scores_of_thousands_neither_overflow_nor_vanish(dtype):
    z = np.array([[1000, -1000, 1000, -1000], [-1000, 1000, 1000, -1000]], dtype)
    labels = np.zeros(4, np.int64)
    loss, dz = run(z, labels)
    assert loss == pytest.approx(2000 + 2 * np.log(2))
    np.testing.assert_allclose(dz, [[0, -1, -0.5, -0.5], [0, 1, 0.5, 0.5]], atol=1e-7)


@dtypes
def test_the_loss_of_what_is_right_is_not_negative(dtype):
    z = np.zeros((3, 128), dtype)
    z[1] = np.linspace(50, 100, 128)
    assert 0 <= run(z, np.ones(128, np.int64))[0] < 1e-15


@dtypes
@pytest.mark.parametrize("label", [-1, 3, 10**12])
def test_a_label_out_of_range_is_refused_before_anything_is_written(dtype, label):
    z, labels, dz = np.zeros((3, 4), dtype), np.array([0, 1, label, 2]), np.ones((3, 4), dtype)
    with pytest.raises(ValueError, match=f"^label {label} at index 2, expected 0 to 2$"):
        softmax_cross_entropy(z, labels, 1.0, dz, np.empty((2, 4)))
    with pytest.raises(ValueError, match=f"^label {label} at index 2, expected 0 to 2$"):
        softmax_score(z, labels)
    assert (dz == 1).all()


@dtypes
def test_a_speech_network_of_8192_classes(dtype):
    z, labels = scores(8192, 5, dtype)
    losses, gradient = truth(z, labels)
    loss, dz = run(z, labels)
    assert loss == pytest.approx(losses.sum(), rel=TOLERANCE[dtype])
    np.testing.assert_allclose(dz, gradient, rtol=20 * TOLERANCE[dtype], atol=0)


@dtypes
@pytest.mark.parametrize("place", [(0, 1), (1, 1), (2, 1)])
@pytest.mark.parametrize("stray", [np.nan, np.inf])
def test_a_stray_score_makes_the_loss_nan(dtype, place, stray):
    z = np.zeros((3, 4), dtype)
    z[place] = stray
    labels = np.zeros(4, np.int64)
    assert np.isnan(run(z, labels)[0]) and np.isnan(softmax_score(z, labels)[0])


@sizes
@dtypes
def test_score_is_scipys(classes, n, dtype):
    z, labels = scores(classes, n, dtype)
    loss, right = softmax_score(z, labels)
    assert loss == pytest.approx(truth(z, labels)[0].sum(), rel=TOLERANCE[dtype], abs=TOLERANCE[dtype])
    assert right == (z.argmax(axis=0) == labels).sum()


@dtypes
def test_ties_go_to_the_lowest_class(dtype):
    z = np.array([[1, 0, 2], [1, 3, 2], [0, 3, 2]], dtype)
    assert softmax_score(z, np.array([0, 1, 0]))[1] == 3
    assert softmax_score(z, np.array([1, 2, 2]))[1] == 0


@dtypes
@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_column_with_nan_counts_as_wrong_whatever_its_label(dtype, row):
    z = np.array([[5, 5], [1, 1], [2, 2]], dtype)
    z[row, 1] = np.nan
    for label in range(3):
        loss, right = softmax_score(z, np.array([0, label]))
        assert np.isnan(loss) and right == 1


@dtypes
def test_a_band_whose_scores_are_all_minus_infinity_adds_nothing(dtype):
    z, labels = np.full((2, 3), -np.inf, dtype), np.array([0, 1, 5])
    dz, sums, score = np.full((2, 3), np.nan, dtype), np.empty((3, 3)), np.empty((4, 3))
    softmax_band(z, labels, 0, dz, sums)
    softmax_band_score(z, labels, 0, score)
    np.testing.assert_array_equal(dz, 0)
    np.testing.assert_array_equal(sums, [[-np.inf] * 3, [0] * 3, [-np.inf, -np.inf, 0]])
    np.testing.assert_array_equal(score[:3], sums)


@dtypes
def test_a_batch_of_nothing(dtype):
    z, labels = np.zeros((3, 0), dtype), np.zeros(0, np.int64)
    assert run(z, labels)[0] == 0.0
    assert softmax_score(z, labels) == (0.0, 0)


@pytest.mark.parametrize(
    ("labels", "dz", "scratch"),
    [(3, (4, 3), (2, 2)), (3, (4, 3), (1, 3)), (2, (4, 3), (2, 3)), (3, (4, 2), (2, 3)), (3, (5, 3), (2, 3))],
)
def test_wrong_shapes_are_refused(labels, dz, scratch):
    z = np.zeros((4, 3), np.float32)
    with pytest.raises((AssertionError, ValueError)):
        softmax_cross_entropy(z, np.zeros(labels, np.int64), 1.0, np.zeros(dz, np.float32), np.zeros(scratch))


@pytest.mark.parametrize("labels", [2, 4])
def test_score_refuses_wrong_numbers_of_labels(labels):
    with pytest.raises((AssertionError, ValueError)):
        softmax_score(np.zeros((4, 3), np.float32), np.zeros(labels, np.int64))


def test_labels_of_32_bits_are_refused():
    with pytest.raises((TypeError, ValueError)):
        softmax_score(np.zeros((4, 3), np.float32), np.zeros(3, np.int32))
