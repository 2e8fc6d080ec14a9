"""The logistic and the squared loss, the count of right answers and the L2 penalty, against NumPy in float64."""

import numpy as np
import pytest

from distbelief.kernels import count_right, l2_penalty, logistic_loss, squared_error, squared_error_of_classes

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
sizes = pytest.mark.parametrize(("classes", "n"), [(1, 1), (2, 1), (10, 7), (17, 13), (3, 64), (2503, 3)])
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-13}


def scores(classes, n, dtype, spread=3.0):
    random = np.random.default_rng([classes, n])
    z = (spread * random.standard_normal((classes, n))).astype(dtype)
    z.flags.writeable = False
    return z, random.integers(0, classes, n)


def logistic(z, labels, scale=1.0, gradient=True):
    """The kernel's loss and gradient; what it must overwrite is full of NaN, and scratch is wider than the batch."""
    dz = np.full(z.shape, np.nan, z.dtype)
    loss = logistic_loss(z, labels, scale, np.full((2, z.shape[1] + 3), np.nan), dz if gradient else None)
    return loss, dz


def squared(z, labels, scale=1.0, gradient=True):
    dz = np.full(z.shape, np.nan, z.dtype)
    kernel = squared_error_of_classes if labels.ndim == 1 else squared_error
    return kernel(z, labels, scale, dz if gradient else None), dz


def true_logistic(z, labels):
    """log(1 + exp(-t z)) and -t / (1 + exp(t z)); logaddexp does not overflow."""
    t = np.where(np.arange(len(z))[:, None] == labels, 1, -1)
    return np.logaddexp(0, -t * z.astype(float)), -t * np.exp(-np.logaddexp(0, t * z.astype(float)))


def true_squared(z, labels):
    error = z.astype(float) - (labels if labels.ndim == 2 else np.arange(len(z))[:, None] == labels)
    return error**2 / 2, error


@sizes
@dtypes
@pytest.mark.parametrize("scale", [1.0, 1 / 7])
def test_logistic_loss_is_numpys(classes, n, dtype, scale):
    z, labels = scores(classes, n, dtype)
    losses, gradient = true_logistic(z, labels)
    loss, dz = logistic(z, labels, scale)
    assert loss == pytest.approx(losses.sum(), rel=TOLERANCE[dtype])
    assert logistic(z, labels, gradient=False)[0] == loss
    np.testing.assert_allclose(dz, scale * gradient, rtol=4 * TOLERANCE[dtype], atol=0)


@dtypes
@pytest.mark.parametrize("level", [100, -100, 1e4, -1e4])
def test_logistic_loss_neither_overflows_nor_vanishes(dtype, level):
    """21,000 classes, all far from zero: each that is wrong costs |z|, each that is right nothing."""
    classes = 21_000
    z, labels = np.full((classes, 2), level, dtype), np.array([0, classes - 1])
    loss, dz = logistic(z, labels)
    wrong = 2 * (classes - 1) if level > 0 else 2
    assert loss == pytest.approx(wrong * abs(level), rel=1e-12)
    np.testing.assert_allclose(dz, true_logistic(z, labels)[1], rtol=1e-5, atol=1e-37)


@dtypes
@pytest.mark.parametrize("level", [15, 18, 19, 30, 80])
def test_logistic_losses_that_are_small_keep_their_digits(dtype, level):
    """All right by far: each term is exp(-level), far below the last place of 1."""
    z, labels = np.full((3, 2), -level, dtype), np.array([0, 1])
    z[[0, 1], [0, 1]] = level
    assert logistic(z, labels)[0] == pytest.approx(
        6 * np.log1p(np.exp(-float(level))), rel=2e-6 if dtype == np.float32 else 1e-7
    )


@dtypes
def test_logistic_terms_around_zero(dtype):
    """Their logarithms are taken of long products: these must neither overflow nor lose digits."""
    z, labels = np.zeros((21_000, 2), dtype), np.array([5, 7])
    assert logistic(z, labels)[0] == pytest.approx(2 * 21_000 * np.log(2), rel=1e-12)


@pytest.mark.parametrize("loss", ["logistic", "classes", "targets"])
def test_gradients_are_the_derivatives_of_the_losses(loss):
    z, labels = scores(5, 3, np.float64)
    run = logistic if loss == "logistic" else squared
    labels = scores(5, 4, np.float64)[0][:, :3].copy() if loss == "targets" else labels
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


@sizes
@dtypes
@pytest.mark.parametrize("targets", [False, True])
def test_squared_error_is_numpys(classes, n, dtype, targets):
    z, labels = scores(classes, n, dtype)
    labels = scores(classes, n + 1, dtype)[0][:, :n].copy() if targets else labels
    losses, error = true_squared(z, labels)
    loss, dz = squared(z, labels, 1 / 7)
    assert loss == pytest.approx(losses.sum(), rel=TOLERANCE[dtype])
    assert squared(z, labels, gradient=False)[0] == loss
    np.testing.assert_allclose(dz, error / 7, rtol=0, atol=TOLERANCE[dtype])


@sizes
@dtypes
@pytest.mark.parametrize("loss", ["logistic", "classes", "targets"])
def test_gradients_may_take_the_outputs_place(classes, n, dtype, loss):
    z, labels = scores(classes, n, dtype)
    z = z.copy()
    if loss == "logistic":
        found, dz = logistic(z, labels, 1 / 7)
        assert logistic_loss(z, labels, 1 / 7, np.empty((2, n)), z) == found
    else:
        labels = scores(classes, n + 1, dtype)[0][:, :n].copy() if loss == "targets" else labels
        found, dz = squared(z, labels, 1 / 7)
        kernel = squared_error if loss == "targets" else squared_error_of_classes
        assert kernel(z, labels, 1 / 7, z) == found
    np.testing.assert_array_equal(z, dz)


@dtypes
@pytest.mark.parametrize("run", [logistic, squared])
@pytest.mark.parametrize("place", [(0, 1), (2, 1)])
def test_a_nan_makes_the_loss_nan(run, dtype, place):
    z = np.zeros((3, 4), dtype)
    z[place] = np.nan
    assert np.isnan(run(z, np.zeros(4, np.int64))[0])


@sizes
@dtypes
def test_right_answers_are_the_highest(classes, n, dtype):
    z, labels = scores(classes, n, dtype)
    assert count_right(z, labels) == (z.argmax(axis=0) == labels).sum()


@dtypes
def test_ties_go_to_the_lowest_class_and_nan_is_wrong(dtype):
    z = np.array([[1, 0, 2, 9], [1, 3, 2, 1], [0, 3, 2, np.nan]], dtype)
    assert count_right(z, np.array([0, 1, 0, 0])) == 3
    assert count_right(z, np.array([1, 2, 2, 2])) == 0


@dtypes
def test_a_batch_of_nothing(dtype):
    z, labels = np.zeros((3, 0), dtype), np.zeros(0, np.int64)
    assert logistic(z, labels)[0] == squared(z, labels)[0] == squared(z, z)[0] == count_right(z, labels) == 0


@dtypes
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1003])
def test_penalty_is_numpys(dtype, size):
    random = np.random.default_rng(size)
    weights, before = random.standard_normal((2, size)).astype(dtype)
    gradient = before.copy()
    penalty = l2_penalty(weights, 0.3, gradient)
    assert penalty == pytest.approx(0.15 * (weights.astype(float) ** 2).sum(), rel=TOLERANCE[dtype])
    np.testing.assert_allclose(gradient, before + 0.3 * weights, rtol=0, atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("labels", [2, 4])
def test_wrong_shapes_are_refused(labels):
    z, dz, scratch = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((2, 3))
    for run in (
        lambda: logistic_loss(z, np.zeros(labels, np.int64), 1, scratch, dz),
        lambda: squared_error_of_classes(z, np.zeros(labels, np.int64), 1, dz),
        lambda: squared_error(z, np.zeros((4, labels)), 1, dz),
        lambda: squared_error(z, z, 1, np.zeros((4, labels))),
        lambda: logistic_loss(z, np.zeros(3, np.int64), 1, np.zeros((2, 2)), dz),
        lambda: count_right(z, np.zeros(labels, np.int64)),
        lambda: l2_penalty(np.zeros(3), 1, np.zeros(labels)),
    ):
        with pytest.raises(AssertionError):
            run()
