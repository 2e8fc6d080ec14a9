"""Assembly of minibatches against NumPy's fancy indexing."""

import numpy as np
import pytest

from distbelief.kernels import gather_columns

sources = pytest.mark.parametrize("stored", [np.uint8, np.float32, np.float64])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
TOLERANCE = {np.float32: 3e-7, np.float64: 1e-15}
SCALE, SHIFT = 1 / 255, -0.5


def a_source(examples, features, stored):
    random = np.random.default_rng([examples, features])
    source = (255 * random.random((examples, features))).astype(stored)
    source.flags.writeable = False  # as a mapped file is
    return source


@sources
@dtypes
@pytest.mark.parametrize("features", [1, 63, 64, 65, 130])  # around the kernel's tiles of 64 features
@pytest.mark.parametrize("rows", [[2], [0, 1, 2, 3], [3, 0, 3, 3, 1], list(range(4)) * 20])
def test_rows_become_columns_scaled_and_shifted(stored, dtype, features, rows):
    source, rows = a_source(4, features, stored), np.array(rows)
    out = np.full((features, len(rows)), np.nan, dtype)
    gather_columns(source, rows, SCALE, SHIFT, out)
    true = source[rows].T.astype(np.float64) * SCALE + SHIFT
    np.testing.assert_allclose(out, true, rtol=0, atol=TOLERANCE[dtype])


@sources
@dtypes
def test_without_scale_and_shift_values_are_kept_exactly(stored, dtype):
    source, rows = a_source(5, 7, stored), np.array([4, 2, 2])
    out = np.empty((7, 3), dtype)
    gather_columns(source, rows, 1.0, 0.0, out)
    np.testing.assert_array_equal(out, source[rows].T.astype(dtype))


@sources
def test_no_rows_are_a_batch_of_nothing(stored):
    gather_columns(a_source(4, 3, stored), np.zeros(0, np.int64), 1.0, 0.0, np.empty((3, 0), np.float32))


@sources
@pytest.mark.parametrize("row", [-1, 4, 2**40, -(2**63)])
@pytest.mark.parametrize("place", [0, 2])
def test_a_row_that_the_source_does_not_have(stored, row, place):
    """Negative ones do not count from the end. Nothing is written."""
    rows = np.array([1, 1, 1])
    rows[place] = row
    out = np.full((3, 3), 7, np.float32)
    with pytest.raises(IndexError, match=f"row {row} of 4"):
        gather_columns(a_source(4, 3, stored), rows, 1.0, 0.0, out)
    assert (out == 7).all()


@pytest.mark.parametrize("shape", [(2, 5), (4, 5), (3, 4), (3, 6), (5, 3)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises((AssertionError, ValueError)):
        gather_columns(a_source(4, 3, np.uint8), np.zeros(5, np.int64), 1.0, 0.0, np.zeros(shape, np.float32))


@pytest.mark.parametrize("stored", [np.int8, np.int16, np.float16, ">f4"])
def test_other_types_of_source_are_refused(stored):
    with pytest.raises((TypeError, ValueError)):
        gather_columns(np.zeros((4, 3), stored), np.zeros(5, np.int64), 1.0, 0.0, np.zeros((3, 5), np.float32))


def test_rows_of_32_bits_are_refused():
    with pytest.raises((TypeError, ValueError)):
        gather_columns(a_source(4, 3, np.uint8), np.zeros(5, np.int32), 1.0, 0.0, np.zeros((3, 5), np.float32))
