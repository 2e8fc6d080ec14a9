"""Updates over flat vectors against NumPy expressions in float64."""

import numpy as np
import pytest

from distbelief.kernels import accrue, adagrad, add, all_finite, compensate, largest, sgd

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# Around the widths of vector registers, and one that no unrolled loop divides.
sizes = pytest.mark.parametrize("size", [0, 1, 7, 8, 17, 64, 1009])
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}


def vectors(count, size, dtype):
    random = np.random.default_rng([count, size])
    return [random.standard_normal(size).astype(dtype) for _ in range(count)]


def assert_close(actual, true):
    np.testing.assert_allclose(actual, true, rtol=TOLERANCE[actual.dtype.type], atol=TOLERANCE[actual.dtype.type])


@sizes
@dtypes
def test_sgd(size, dtype):
    parameters, *gradients = vectors(4, size, dtype)
    true = parameters.astype(np.float64)
    for gradient in gradients:
        gradient.flags.writeable = False
        sgd(parameters, gradient, 0.3)
        true -= 0.3 * gradient
    assert_close(parameters, true)


@sizes
@dtypes
def test_adagrad_over_a_sequence_of_updates(size, dtype):
    """Dean et al. 2012, section 4.1: rate / sqrt(sum of squares), the current gradient included."""
    parameters, *gradients = vectors(21, size, dtype)
    squares, true_squares, true = np.zeros(size, dtype), np.zeros(size), parameters.astype(np.float64)
    for gradient in gradients:
        gradient.flags.writeable = False
        adagrad(parameters, gradient, squares, 0.1)
        true_squares += gradient.astype(np.float64) ** 2
        true -= 0.1 * gradient / np.sqrt(true_squares)
        assert_close(squares, true_squares)
    assert_close(parameters, true)


@dtypes
def test_the_first_update_of_adagrad_has_the_size_of_the_rate(dtype):
    """g / sqrt(g^2): state that left the current gradient out would divide by zero here."""
    parameters, squares = np.zeros(4, dtype), np.zeros(4, dtype)
    adagrad(parameters, np.array([1e-3, -7, 1e6, -1e-9], dtype), squares, 0.5)
    np.testing.assert_allclose(parameters, [-0.5, 0.5, -0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("shadowed", [False, True])
@pytest.mark.parametrize("bounds", [(0, 1), (0, 31), (5, 70), (33, 200), (64, 1100)])
def test_what_adagrad_does_to_a_number_does_not_depend_on_where_it_lies(bounds, shadowed, narrow):
    """Runs on different numbers of shards do the same, to the last bit."""
    parameters, squares, gradient = vectors(3, 1200, np.float32)
    squares **= 2
    if narrow:
        gradient = (gradient.view(np.uint32) >> 16).astype(np.uint16)
    whole, part = ([parameters.copy(), squares.copy(), np.zeros(1200, np.uint16)] for _ in range(2))
    adagrad(whole[0], gradient, whole[1], 0.1, whole[2] if shadowed else None)
    here, outside = slice(*bounds), np.ones(1200, bool)
    outside[here] = False
    mine = [each[here] for each in part]
    adagrad(mine[0], gradient[here], mine[1], 0.1, mine[2] if shadowed else None)
    for inside, expected, before in zip(part, whole, (parameters, squares, 0), strict=True):
        np.testing.assert_array_equal(inside[here], expected[here])
        np.testing.assert_array_equal(inside[outside], np.broadcast_to(before, 1200)[outside])


@dtypes
@pytest.mark.parametrize("size", [1, 40])
def test_where_squares_overflow_a_parameter_stays_put(size, dtype):
    large = np.sqrt(np.finfo(dtype).max) * 2
    parameters, squares = np.ones(size, dtype), np.zeros(size, dtype)
    adagrad(parameters, np.full(size, large, dtype), squares, 0.1)
    assert np.isinf(squares).all()
    np.testing.assert_array_equal(parameters, 1)
    adagrad(parameters, np.full(size, 0.6 * np.finfo(dtype).max, dtype), squares, 2.0)  # so would rate gradient
    np.testing.assert_array_equal(parameters, 1)


@dtypes
def test_what_has_not_moved_is_not_corrected_however_large(dtype):
    most = float(np.finfo(dtype).max)
    gradient, out = np.array([0.9 * most, -(most**0.6), 1, 0], dtype), np.full(4, np.nan, dtype)
    compensate(gradient, np.ones(4, dtype), np.ones(4, dtype), 0.04, out)
    np.testing.assert_array_equal(out, gradient)


@dtypes
def test_a_gradient_of_zero_updates_nothing(dtype):
    parameters, squares = np.array([3, 4], dtype), np.array([0, 4], dtype)
    adagrad(parameters, np.zeros(2, dtype), squares, 0.5)
    np.testing.assert_array_equal(parameters, [3, 4])
    np.testing.assert_array_equal(squares, [0, 4])


@dtypes
def test_gradients_whose_squares_vanish_never_move_a_parameter_further_than_the_rate(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    parameters, squares = np.zeros(2, dtype), np.zeros(2, dtype)
    adagrad(parameters, np.array([tiny, -np.sqrt(tiny)], dtype), squares, 0.5)
    assert np.isfinite(parameters).all() and (np.abs(parameters) <= 0.5).all()


@dtypes
@pytest.mark.parametrize("kernel", ["sgd", "adagrad", "accrue"])
def test_an_update_of_an_interval_leaves_its_neighbours_alone(kernel, dtype):
    flats = [np.full(30, 5, dtype) for _ in range(3)]
    parameters, gradient, other = (flat[4:17] for flat in flats)
    if kernel == "sgd":
        sgd(parameters, gradient, 0.1)
    elif kernel == "adagrad":
        adagrad(parameters, gradient, other, 0.1)
    else:
        accrue(parameters, other, gradient, 0.1)
    changed = flats[0] != 5
    assert changed[4:17].all() and not changed[:4].any() and not changed[17:].any()
    assert (flats[1] == 5).all() and (flats[2][:4] == 5).all() and (flats[2][17:] == 5).all()


@sizes
@dtypes
def test_accrue_sums_gradients_and_takes_local_steps(size, dtype):
    parameters, accrued, *gradients = vectors(6, size, dtype)
    true, true_sum = parameters.astype(np.float64), accrued.astype(np.float64)
    for gradient in gradients:
        gradient.flags.writeable = False
        assert accrue(parameters, accrued, gradient, 0.2) is True
        true -= 0.2 * gradient
        true_sum += gradient
    assert_close(parameters, true)
    assert_close(accrued, true_sum)


@dtypes
def test_a_rate_of_zero_only_accrues(dtype):
    parameters, accrued, gradient = vectors(3, 11, dtype)
    before, expected = parameters.copy(), accrued + gradient
    accrue(parameters, accrued, gradient, 0.0)
    np.testing.assert_array_equal(parameters, before)
    np.testing.assert_array_equal(accrued, expected)


@sizes
@dtypes
def test_add(size, dtype):
    accrued, gradient = vectors(2, size, dtype)
    gradient.flags.writeable = False
    true = accrued + gradient
    assert add(accrued, gradient) is True
    np.testing.assert_array_equal(accrued, true)


@dtypes
@pytest.mark.parametrize("stray", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 37])
def test_a_stray_number_is_seen_wherever_it_stands(stray, size, dtype):
    for place in range(size):
        gradient = np.ones(size, dtype)
        gradient[place] = stray
        assert accrue(np.zeros(size, dtype), np.zeros(size, dtype), gradient, 0.1) is False
        assert add(np.zeros(size, dtype), gradient) is False
        assert all_finite(gradient) is False


@dtypes
@pytest.mark.parametrize("size", [1, 37])
def test_a_sum_that_overflows_is_seen_wherever_it_stands(size, dtype):
    most = np.finfo(dtype).max
    for place in range(size):
        gradient = np.ones(size, dtype)
        gradient[place] = 0.75 * most
        assert accrue(np.zeros(size, dtype), gradient.copy(), gradient, 0.1) is False
        assert add(gradient.copy(), gradient) is False


@dtypes
def test_the_largest_and_smallest_numbers_are_finite(dtype):
    info = np.finfo(dtype)
    values = np.array([info.max, info.min, info.tiny, info.smallest_subnormal, 0, -0.0], dtype)
    assert all_finite(values) is True and all_finite(values[:0]) is True
    assert accrue(np.zeros(6, dtype), np.zeros(6, dtype), values, 0.1) is True


@dtypes
@sizes
def test_the_largest_is_that_of_numpy_and_infinite_if_there_is_a_nan(dtype, size):
    (values,) = vectors(1, size, dtype)
    assert largest(values) == np.abs(values).max(initial=0)
    for stray in (np.nan, -np.nan, np.inf, -np.inf):
        for place in {0, size // 2, size - 1} if size else ():
            spoilt = values.copy()
            spoilt[place] = stray
            assert largest(spoilt) == np.inf


@sizes
def test_the_largest_of_bfloat16(size):
    bits = (vectors(1, size, np.float32)[0].view(np.uint32) >> 16).astype(np.uint16)
    assert largest(bits) == np.abs((bits.astype(np.uint32) << 16).view(np.float32)).max(initial=0)
    if size:
        bits[size // 2] = 0xFFC0  # a NaN, its sign set
        assert largest(bits) == np.inf


@pytest.mark.parametrize("kernel", [sgd, adagrad, accrue])
def test_wrong_sizes_are_refused(kernel):
    count = 2 if kernel is sgd else 3
    for place in range(count):
        for size in (4, 6):
            arrays = [np.zeros(5, np.float32) for _ in range(count)]
            arrays[place] = np.zeros(size, np.float32)
            with pytest.raises((AssertionError, ValueError)):
                kernel(*arrays, 0.1)


@pytest.mark.parametrize("kernel", [sgd, adagrad, accrue])
def test_wrong_types_are_refused(kernel):
    count = 2 if kernel is sgd else 3
    right = [np.zeros(5, np.float32) for _ in range(count)]
    for place in range(count):
        for wrong in (np.zeros(5), np.zeros(5, np.int32), np.zeros((5, 1), np.float32), np.zeros(10, np.float32)[::2]):
            with pytest.raises((TypeError, ValueError)):
                kernel(*right[:place], wrong, *right[place + 1 :], 0.1)
