"""bfloat16: rounding against its definition written out, every case of it, and updates that use it."""

import numpy as np
import pytest

from distbelief.kernels import adagrad, compensate, momentum, narrow, narrow_carrying, sgd, widen


def _round(values: np.ndarray) -> np.ndarray:
    """Round to nearest even by exact arithmetic: the closer of the two neighbours, the even one of a tie."""
    bits = values.astype(np.float32).view(np.uint32)
    low = (bits >> 16).astype(np.uint16)
    high = (low + 1).astype(np.uint16)
    exact = values.astype(np.float64)
    below = (low.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    above = (high.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    # Beyond the largest number the next would be 2^128, which bfloat16 shows as infinity.
    above = np.where(np.isinf(above), np.copysign(2.0**128, below), above)
    nearer_above = np.abs(above - exact) < np.abs(exact - below)
    tie = np.abs(above - exact) == np.abs(exact - below)
    return np.where(nearer_above | (tie & (low & 1 == 1)), high, low).astype(np.uint16)


def _every_upper_half(lower: int) -> np.ndarray:
    values = ((np.arange(2**16, dtype=np.uint32) << 16) | lower).view(np.float32)
    return values[np.isfinite(values)]


@pytest.mark.parametrize("lower", [0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_narrow_rounds_every_number_to_nearest_even(lower):
    values = _every_upper_half(lower)
    out = np.empty(values.size, np.uint16)
    narrow(values, out)
    np.testing.assert_array_equal(out, _round(values))


def test_infinities_stay_and_nan_stays_a_nan():
    nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0x7FC00000], np.uint32).view(np.float32)
    values = np.concatenate([np.array([np.inf, -np.inf], np.float32), nans])
    out, back = np.empty(6, np.uint16), np.empty(6, np.float32)
    narrow(values, out)
    widen(out, back)
    assert back[0] == np.inf and back[1] == -np.inf and np.isnan(back[2:]).all()


def test_widen_is_exact():
    bits = np.arange(2**16, dtype=np.uint16)
    for dtype in (np.float32, np.float64):
        out = np.empty(bits.size, dtype)
        widen(bits, out)
        with np.errstate(invalid="ignore"):  # signalling NaNs
            np.testing.assert_array_equal(out, (bits.astype(np.uint32) << 16).view(np.float32).astype(dtype))


def test_what_rounding_loses_is_carried_over():
    """A thousand pushes of numbers too fine for bfloat16: the sum that arrives is right to one rounding."""
    rng = np.random.default_rng(0)
    carry, out, back = np.zeros(50, np.uint16), np.empty(50, np.uint16), np.empty(50, np.float32)
    sent, arrived, plain = np.zeros(50), np.zeros(50), np.zeros(50)
    for _ in range(1000):
        values = (1 + 0.001 * rng.standard_normal(50)).astype(np.float32)
        narrow_carrying(values, carry, out)
        widen(out, back)
        sent, arrived = sent + values, arrived + back
        narrow(values, out)
        widen(out, back)
        plain = plain + back
    np.testing.assert_allclose(arrived, sent, atol=2**-7)
    assert np.abs(plain - sent).max() > 0.05, "without the carry the loss adds up"


LARGEST = np.array([0x7F7F0000], np.uint32).view(np.float32)[0]  # of the bfloat16 numbers
FLOAT_MAX = np.finfo(np.float32).max


def _carried(values: np.ndarray, carry: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What narrow_carrying makes of `values` and the numbers `carry`: the values that leave, and those carried."""
    bits, out = np.zeros(values.size, np.uint16), np.empty(values.size, np.uint16)
    if carry is not None:
        narrow(carry.astype(np.float32), bits)
    narrow_carrying(values, bits, out)
    sent, kept = np.empty((2, values.size), np.float32)
    widen(out, sent)
    widen(bits, kept)
    return sent, kept


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 37])  # alone, and in a vector
def test_what_is_finite_leaves_as_the_largest_number_at_most(dtype, size):
    for sign in (1, -1):
        for value in (FLOAT_MAX, np.nextafter(LARGEST, np.float32(np.inf)), LARGEST, np.float32(3.392e38)):
            sent, kept = _carried(np.full(size, sign * value, dtype))
            np.testing.assert_array_equal(sent, sign * LARGEST)
            assert not kept.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 37])
def test_a_sum_that_overflows_leaves_as_the_largest_number_and_carries_nothing(dtype, size):
    for sign in (1, -1):
        value, carry = np.full(size, sign * FLOAT_MAX, dtype), np.full(size, sign * 1e38)
        sent, kept = _carried(value, carry)
        np.testing.assert_array_equal(sent, sign * LARGEST)
        assert not kept.any()


def test_a_double_beyond_every_float_leaves_as_the_largest_number():
    sent, kept = _carried(np.array([1e39, -1e308, np.finfo(float).max]))
    np.testing.assert_array_equal(sent, [LARGEST, -LARGEST, LARGEST])
    assert np.isfinite(kept).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 37])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinities_leave_as_the_largest_number_nans_as_nans_and_neither_is_carried(dtype, size, value):
    sent, kept = _carried(np.full(size, value, dtype), np.full(size, 0.5))
    np.testing.assert_array_equal(sent, np.full(size, np.clip(value, -LARGEST, LARGEST), np.float32))
    np.testing.assert_array_equal(kept, 0)


@pytest.mark.parametrize("lower", [0x0000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_every_finite_number_leaves_as_the_nearest_and_its_rest_is_carried(lower):
    values = _every_upper_half(lower)
    sent, kept = _carried(values)
    nearest = (_round(values).astype(np.uint32) << 16).view(np.float32)
    _assert_equal_or_flushed(sent, np.clip(nearest, -LARGEST, LARGEST), values)
    held = np.clip(values, -LARGEST, LARGEST)  # what is beyond is lost
    rest = (held.astype(np.float64) - sent.astype(np.float64)).astype(np.float32)
    _assert_equal_or_flushed(kept, (_round(rest).astype(np.uint32) << 16).view(np.float32), rest)


def _assert_equal_or_flushed(actual: np.ndarray, expected: np.ndarray, rounded: np.ndarray) -> None:
    """What is below all normal numbers, and not only that, may become 0: the CPU's own rounding makes it so."""
    tiny = np.abs(rounded) < np.finfo(np.float32).tiny
    np.testing.assert_array_equal(actual[~tiny], expected[~tiny])
    np.testing.assert_array_equal(actual[tiny], np.where(actual[tiny] == 0, 0, expected[tiny]))


@pytest.mark.parametrize("size", [1, 31, 32, 33, 63, 65, 100])
@pytest.mark.parametrize("shift", [0, 1, 31])
def test_what_a_number_leaves_as_does_not_depend_on_where_it_lies(size, shift):
    rng = np.random.default_rng(2)
    values, carry = rng.standard_normal(200).astype(np.float32), rng.integers(0, 0x3F00, 200).astype(np.uint16)
    whole, whole_carry = np.zeros(200, np.uint16), carry.copy()
    narrow_carrying(values, whole_carry, whole)
    part, part_carry = np.zeros(200, np.uint16), carry.copy()
    here = slice(shift, shift + size)
    narrow_carrying(values[here], part_carry[here], part[here])
    np.testing.assert_array_equal(part[here], whole[here])
    np.testing.assert_array_equal(part_carry[here], whole_carry[here])
    outside = np.ones(200, bool)
    outside[here] = False  # and nothing else is touched
    assert not part[outside].any()
    np.testing.assert_array_equal(part_carry[outside], carry[outside])


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("update", ["sgd", "adagrad", "momentum"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates_by_a_bfloat16_gradient_with_a_shadow(update, dtype, size):
    rng = np.random.default_rng(1)
    bits = np.empty(size, np.uint16)
    narrow(rng.standard_normal(size).astype(np.float32), bits)
    gradient = np.empty(size, dtype)
    widen(bits, gradient)
    start, kept = rng.standard_normal(size).astype(dtype), rng.random(size).astype(dtype)
    expected, memory, shadow = start.copy(), kept.copy(), np.zeros(size, np.uint16)
    by_bits, by_bits_memory = start.copy(), kept.copy()
    if update == "sgd":
        sgd(expected, gradient, 0.1)
        sgd(by_bits, bits, 0.1, shadow)
    elif update == "adagrad":
        adagrad(expected, gradient, memory, 0.1)
        adagrad(by_bits, bits, by_bits_memory, 0.1, shadow)
    else:
        momentum(expected, gradient, memory, 0.1, 0.9)
        momentum(by_bits, bits, by_bits_memory, 0.1, 0.9, shadow)
        np.testing.assert_allclose(memory, 0.9 * kept + gradient, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(expected, start - 0.1 * memory, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(by_bits, expected)
    np.testing.assert_array_equal(by_bits_memory, memory)
    np.testing.assert_array_equal(shadow, _round(expected.astype(np.float32)))


def test_compensation_is_the_formula():
    rng = np.random.default_rng(2)
    gradient, now, fetched = rng.standard_normal((3, 100))
    out = np.empty(100)
    compensate(gradient, now, fetched, 0.04, out)
    np.testing.assert_allclose(out, gradient + 0.04 * gradient * gradient * (now - fetched), rtol=1e-12)


@pytest.mark.parametrize(("parameters", "gradient"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_float_types_are_not_mixed(parameters, gradient):
    with pytest.raises(ValueError):
        sgd(np.zeros(3, parameters), np.zeros(3, gradient), 0.1)
