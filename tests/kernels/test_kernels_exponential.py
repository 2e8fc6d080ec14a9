"""exp, the logistic function and tanh of the float32 kernels, counted in units of the last place against NumPy."""

import numpy as np
import pytest
from scipy.special import expit

from distbelief.kernels import ACTIVATIONS, dense_forward, softmax_cross_entropy

TRUTH = {"sigmoid": expit, "tanh": np.tanh}
activations = pytest.mark.parametrize("activation", list(TRUTH))


def values(activation: str, z: np.ndarray) -> np.ndarray:
    """activation(z), by a layer of one weight 1 and one bias 0."""
    y = np.empty((1, z.size), z.dtype)
    dense_forward(np.ones((1, 1), z.dtype), np.zeros(1, z.dtype), z[None, :], ACTIVATIONS[activation], y)
    return y[0]


def ulps(actual: np.ndarray, true: np.ndarray) -> np.ndarray:
    """How many float32 numbers `actual` is away from `true`, a fraction for a `true` between two of them."""
    return np.abs(actual.astype(np.float64) - true) / np.spacing(np.abs(true).astype(np.float32))


def every_magnitude() -> np.ndarray:
    """One float32 of every 4093, the prime keeping mantissas apart: denormals, normals, both signs."""
    z = np.arange(0, 2**32, 4093, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return z[np.isfinite(z)]


@activations
def test_within_three_units_of_the_last_place_everywhere(activation):
    z = every_magnitude()
    assert ulps(values(activation, z), TRUTH[activation](z.astype(np.float64))).max() < 3


@activations
def test_within_three_units_where_training_happens(activation):
    z = np.linspace(-20, 20, 400_001, dtype=np.float32)
    assert ulps(values(activation, z), TRUTH[activation](z.astype(np.float64))).max() < 3


def test_exp_is_within_one_unit_down_to_the_denormals():
    """sigmoid(z) is e^z, to the last place, as soon as e^z is nothing beside 1."""
    z = np.linspace(-104, -18, 300_001, dtype=np.float32)
    true = np.exp(z.astype(np.float64))
    assert true.min() < 2.0**-150  # rounds to 0
    assert ulps(values("sigmoid", z), true).max() <= 1


@activations
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_zeros_and_nan(activation, dtype):
    z = np.array([-np.inf, -1e30, -0.0, 0.0, 1e30, np.inf, np.nan], dtype)
    at_zero = 0.5 if activation == "sigmoid" else 0
    low = 0 if activation == "sigmoid" else -1
    np.testing.assert_array_equal(values(activation, z), [low, low, at_zero, at_zero, 1, 1, np.nan])


def test_at_plus_and_minus_a_hundred():
    z = np.array([-100, 100], np.float32)
    assert ulps(values("sigmoid", z), expit(z.astype(np.float64))).max() <= 1
    np.testing.assert_array_equal(values("tanh", z), [-1, 1])


def test_tanh_is_odd():
    z = np.abs(every_magnitude())
    np.testing.assert_array_equal(values("tanh", -z), -values("tanh", z))


def test_softmax_of_far_scores_keeps_its_relative_precision():
    """Down to the smallest normal number a class's share is right to a few units of its last place."""
    z = np.zeros((2, 70), np.float32)
    z[1] = -np.arange(17, 87)
    dz = np.empty_like(z)
    softmax_cross_entropy(z, np.zeros(70, np.int64), 1.0, dz, np.empty((2, 70)))
    assert ulps(dz[1], np.exp(z[1].astype(np.float64)) / (1 + np.exp(z[1].astype(np.float64)))).max() < 3
