"""Blocks of dot products and linear combinations against NumPy in float64 and in exact integers."""

import os
import subprocess
import sys

import numpy as np
import pytest

from distbelief.kernels import combine, gram

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# Around the widths of registers, around blocks of 8192, and more than one chunk of 262144.
sizes = pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 17, 1009, 8191, 8192, 8197, 300_007])
TOLERANCE = {np.float32: 1e-7, np.float64: 1e-15}


def vectors(count, size, dtype):
    return list(np.random.default_rng([count, size]).standard_normal((count, size)).astype(dtype))


@sizes
@dtypes
def test_gram(size, dtype):
    rows, columns = vectors(3, size, dtype), vectors(6, size, dtype)
    out = np.full((3, 6), np.nan)
    gram(rows, columns, out)
    wide = np.array(columns, np.float64)
    true = np.array(rows, np.float64) @ wide.T
    # The products of float32 numbers are exact in double, so that only the sums round, for both types.
    np.testing.assert_allclose(out, true, rtol=0, atol=1e-15 * (size + 1))


@dtypes
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 21])
def test_gram_of_whole_numbers_is_exact_for_every_shape_of_block(rows, columns, dtype):
    numbers = np.random.default_rng(0).integers(-9, 10, (rows + columns, 8230))
    arrays = list(numbers.astype(dtype))
    out = np.empty((rows, columns))
    gram(arrays[:rows], arrays[rows:], out)
    np.testing.assert_array_equal(out, numbers[:rows] @ numbers[rows:].T)


@dtypes
def test_gram_of_vectors_with_themselves(dtype):
    arrays = vectors(4, 1009, dtype)
    out = np.empty((4, 4))
    gram(arrays, arrays, out)
    np.testing.assert_allclose(out, out.T, rtol=1e-13)
    np.testing.assert_allclose(np.diag(out), [np.linalg.norm(v.astype(np.float64)) ** 2 for v in arrays], rtol=1e-14)


def test_gram_of_float32_is_summed_in_double():
    """A million times 1 + 1e-4: sums in float32 are wrong in the fifth place; squares overflow in float32."""
    ones, out = np.full(1_000_000, 1 + 2**-13, np.float32), np.empty((1, 1))
    gram([ones], [ones], out)
    assert out[0, 0] == 1_000_000 * (1 + 2**-13) ** 2
    large = np.full(3, 1e30, np.float32)
    gram([large], [large], out)
    assert np.isclose(out[0, 0], 3e60, rtol=1e-6)


def test_gram_does_not_hide_what_is_not_finite():
    a, b = np.ones(9000), np.ones(9000)
    a[8500], b[10] = np.inf, np.nan
    out = np.empty((2, 2))
    gram([a, b], [np.ones(9000), a], out)
    assert out[0, 0] == np.inf and np.isnan(out[1]).all()


def test_gram_of_nothing():
    gram([], [np.ones(3)], np.empty((0, 1)))
    out = np.full((2, 1), np.nan)
    gram([np.ones(0)] * 2, [np.ones(0)], out)
    assert (out == 0).all()


@sizes
@dtypes
@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 21])
def test_combine(count, size, dtype):
    arrays = vectors(count, size, dtype)
    coefficients = np.linspace(-2, 3, count)
    target = np.full(size, np.nan, dtype)
    combine(coefficients, arrays, target)
    true = sum((c * v.astype(np.float64) for c, v in zip(coefficients, arrays, strict=True)), np.zeros(size))
    np.testing.assert_allclose(target, true, rtol=TOLERANCE[dtype], atol=1e-13)


@sizes
@dtypes
@pytest.mark.parametrize("place", range(6))
def test_the_target_may_be_one_of_the_vectors(place, size, dtype):
    arrays = vectors(6, size, dtype)
    coefficients = np.array([0.5, -1, 2, 0.25, 3, -0.125])
    expected = np.empty(size, dtype)
    combine(coefficients, arrays, expected)
    combine(coefficients, arrays, arrays[place])
    np.testing.assert_array_equal(arrays[place], expected)


@dtypes
def test_float32_is_rounded_once(dtype):
    """1e8 + 1 - 1e8: 1 in double, 0 if intermediate sums were float32."""
    target = np.empty(3, dtype)
    combine(np.array([1.0, 1.0, -1.0]), [np.full(3, v, dtype) for v in (1e8, 1, 1e8)], target)
    np.testing.assert_array_equal(target, 1)


@dtypes
def test_combine_of_an_interval_leaves_its_neighbours_alone(dtype):
    flat = np.full(30, 5, dtype)
    combine(np.array([2.0]), [np.ones(13, dtype)], flat[4:17])
    assert (flat[4:17] == 2).all() and (flat[:4] == 5).all() and (flat[17:] == 5).all()


def test_vectors_that_do_not_fit_are_refused():
    good, short, other = np.ones(5), np.ones(4), np.ones(5, np.float32)
    for bad in (short, other, np.ones((5, 1)), np.ones(10)[::2], np.ones(5, np.int64)):
        with pytest.raises((AssertionError, ValueError)):
            gram([good], [bad], np.empty((1, 1)))
        with pytest.raises((AssertionError, ValueError)):
            combine(np.ones(2), [good, bad], np.ones(5))
    with pytest.raises(AssertionError):
        gram([good], [good], np.empty((1, 2)))
    with pytest.raises(AssertionError):
        combine(np.ones(2), [good], np.ones(5))


PROGRAM = """
import numpy as np
from distbelief.kernels import combine, gram
v = np.random.default_rng(0).standard_normal((5, 1_100_003)).astype(np.float32)
out = np.empty((2, 4))
gram(list(v[:2]), list(v[:4]), out)
combine(np.linspace(1, 2, 4), list(v[:4]), v[4])
print(out.tobytes().hex(), hash(v[4].tobytes()))
"""


def test_results_do_not_depend_on_the_number_of_threads():
    def run(threads):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": "0"}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("1") == run("2") == run("3")
