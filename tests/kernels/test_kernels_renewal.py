"""What is fetched becomes parameters: against NumPy, past the caches and through them."""

import numpy as np
import pytest

from distbelief.kernels import adagrad, copy_past, narrow_carrying, renew

# Around a line of the cache, and around the block that goes past it.
sizes = pytest.mark.parametrize("size", [0, 1, 15, 16, 63, 64, 1023, 1024, 1025, 5000])
pasts = pytest.mark.parametrize("past", [False, True])


def out_of(size, dtype, offset):
    """An array that does not begin on a line of the cache, with neighbours that are to stay."""
    whole = np.full(size + 16, 7, dtype)
    return whole, whole[offset : offset + size]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 3])
@pasts
@sizes
def test_values_less_a_step(size, past, offset, dtype):
    values, gradient = np.random.default_rng(size).standard_normal((2, size)).astype(dtype)
    for rate, lacking in ((0.0, None), (0.25, gradient)):
        whole, out = out_of(size, dtype, offset)
        renew(values, out, lacking, rate, past)
        true = values if lacking is None else values - dtype(rate) * lacking
        np.testing.assert_allclose(out, true, rtol=0, atol=4 * np.finfo(dtype).eps)
        assert (whole[:offset] == 7).all() and (whole[offset + size :] == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pasts
def test_bfloat16_becomes_wide(past, dtype):
    bits = np.arange(0, 1 << 16, 7, dtype=np.uint16)
    bits = bits[(bits & 0x7F80) != 0x7F80]  # finite
    true = (bits.astype(np.uint32) << 16).view(np.float32).astype(dtype)
    _, out = out_of(bits.size, dtype, 1)
    renew(bits, out, past=past)
    np.testing.assert_array_equal(out, true)
    gradient = np.ones(bits.size, dtype)
    renew(bits, out, gradient, 0.5, past)
    np.testing.assert_array_equal(out, true - dtype(0.5))


@pytest.mark.parametrize("offset", [0, 3])
@sizes
def test_a_copy_past_the_caches(size, offset):
    values = np.random.default_rng(size).integers(0, 1 << 8, size, np.uint8)
    whole, out = out_of(size, np.uint8, offset)
    copy_past(values, out)
    np.testing.assert_array_equal(out, values)
    assert (whole[:offset] == 7).all() and (whole[offset + size :] == 7).all()


def unaligned(size, dtype):
    """Zeros that begin between two places where a number of theirs would."""
    return np.zeros((size + 1) * np.dtype(dtype).itemsize, np.uint8)[1:][: size * np.dtype(dtype).itemsize].view(dtype)


def test_arrays_that_are_not_aligned_to_their_numbers():
    values = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    out, rounded, aligned = unaligned(200, np.float32), unaligned(200, np.uint16), np.zeros(200, np.uint16)
    renew(values, out, None, 0.0, True)
    np.testing.assert_array_equal(out, values)
    for there in (rounded, aligned):
        narrow_carrying(values, np.zeros(200, np.uint16), there)
    np.testing.assert_array_equal(rounded, aligned)
    for there in (rounded, aligned):
        adagrad(values.copy(), values, np.ones(200, np.float32), 0.1, there)
    np.testing.assert_array_equal(rounded, aligned)


def test_wrong_sizes_and_types_are_refused():
    five, six = np.zeros(5, np.float32), np.zeros(6, np.float32)
    for arguments in ((five, six), (six, five), (five, five.copy(), six, 0.1)):
        with pytest.raises(AssertionError):
            renew(*arguments)
    with pytest.raises((TypeError, ValueError)):
        renew(five, np.zeros(5, np.int32))
    with pytest.raises(AssertionError):
        copy_past(np.zeros(5, np.uint8), np.zeros(6, np.uint8))
    with pytest.raises((TypeError, ValueError)):
        copy_past(five, five.copy())
