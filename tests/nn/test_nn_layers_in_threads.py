"""Pooling and normalisation by several threads: to the last bit what one makes, and that is plain NumPy's."""

import math

import numpy as np
import pytest
from nn.layer_cases import backward, forward, name_of, reference

from distbelief.kernels import use_threads
from distbelief.nn import Normalise, Pool

# What several threads are called for (threads.pxd), as both kinds of kernel count: 10 for each number of the input.
ENOUGH = 1e6
BELOW, N = (17, 13, 8), 64

# Windows that overlap by more and less, side by side, apart; one row of windows for all threads.
WINDOWS = [((5, 3), 2), (3, 1), (2, 2), (2, 3), ((17, 2), 1)]
LAYERS = [Pool("pool0", BELOW, *window, function) for window in WINDOWS for function in ("l2", "max", "average")]
LAYERS += [Normalise("normalise0", BELOW, (5, 3)), Normalise("normalise0", BELOW, 7, 1.0)]
# Parts of an image: what they see beyond their own rows is no border.
PARTS = [Normalise("normalise0", BELOW, 5).cut(*rows) for rows in [(4, 12), (1, 17)]]


def id_of(layer) -> str:
    return f"{name_of(layer)}-{layer.shape[0]}"


@pytest.fixture(autouse=True)
def as_before():
    yield
    use_threads(1)


def numbers(shape, dtype, seed=0):
    """Quarters, so that windows have maxima that are equal."""
    return (np.round(4 * np.random.default_rng(seed).standard_normal((*shape, N))) / 4).astype(dtype)


def work(layer, dtype, threads):
    """y and dx; what a kernel leaves out stays NaN."""
    use_threads(threads)
    x, dy = numbers(layer.below, dtype), numbers(layer.shape, dtype, seed=1)
    return forward(layer, {}, x)[0], backward(layer, {}, x, dy)[0]


@pytest.mark.parametrize("layer", LAYERS + PARTS, ids=id_of)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_change_no_bit(layer, dtype, threads):
    assert 10 * math.prod(layer.below) * N > ENOUGH
    for one, several in zip(work(layer, dtype, 1), work(layer, dtype, threads), strict=True):
        np.testing.assert_array_equal(several.view(np.uint8), one.view(np.uint8))
        assert np.isfinite(several).all()


@pytest.mark.parametrize("layer", LAYERS, ids=id_of)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_three_threads_make_what_numpy_does(layer, dtype, tolerance):
    y, _ = work(layer, dtype, 3)
    np.testing.assert_allclose(y, reference(layer, {}, numbers(BELOW, dtype)), rtol=0, atol=tolerance)
