# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""bfloat16 as arrays of uint16, which hold the upper halves of float32 numbers."""

from cython.parallel cimport prange

from distbelief.kernels.ahead cimport AHEAD, STRIDE, ahead
from distbelief.kernels.bfloat16 cimport narrow_bits, widen_bits
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport band_start, bands_of


def widen(const unsigned short[::1] bits, real[::1] out):
    """out = bits, exactly."""
    cdef Py_ssize_t i, size = bits.shape[0]
    assert out.shape[0] == size
    with nogil:
        for i in range(size):
            out[i] = widen_bits(bits[i])


cdef void _narrow(const real *values, Py_ssize_t size, unsigned short *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        out[i] = narrow_bits(<float>values[i])


def narrow(const real[::1] values, unsigned short[::1] out):
    """out = values, rounded to nearest, ties to even; a NaN stays a NaN. Threads share the array."""
    cdef Py_ssize_t first, size = values.shape[0]
    cdef int bands = bands_of(10.0 * size), band
    assert out.shape[0] == size
    if size == 0:
        return
    with nogil:
        for band in prange(bands, schedule="static", use_threads_if=bands > 1):
            first = band_start(size, bands, band)
            _narrow[real](&values[0] + first, band_start(size, bands, band + 1) - first, &out[0] + first)


cdef void _carry(const real *values, unsigned short *carry, Py_ssize_t size, unsigned short *out) noexcept nogil:
    cdef Py_ssize_t i
    cdef real sum
    cdef unsigned short bits, rest, finite
    for i in range(size):
        sum = values[i] + widen_bits(carry[i])
        bits = narrow_bits(<float>sum)
        # Without branches, and in integers where they do: so it vectorises, into few instructions.
        finite = values[i] - values[i] == 0
        bits -= finite & ((bits & 0x7FFF) == 0x7F80)  # infinity, of either sign: the largest number comes before it
        out[i] = bits
        rest = narrow_bits(<float>(sum - widen_bits(bits)))
        carry[i] = rest if (rest & 0x7FFF) < 0x7F80 else 0


def narrow_carrying(const real[::1] values, unsigned short[::1] carry, unsigned short[::1] out):
    """out = values + carry, rounded; carry = what the rounding lost, for the next time, itself in bfloat16.

    The carry is at most 2^-8 of a sum, and what rounding it loses at most 2^-8 of that: of either sign, so that it does
    not add up. Finite values stay finite: a sum that would round to infinity becomes the largest bfloat16 of its sign.
    Infinities and NaNs stay what they are. A rest that is not finite is not carried.
    """
    cdef Py_ssize_t start = 0, line, size = values.shape[0]
    assert carry.shape[0] == size and out.shape[0] == size
    with nogil:
        while start < size:
            for line in range(STRIDE * sizeof(real) // 64):
                ahead(&values[start] + AHEAD + line * (64 // sizeof(real)))
            for line in range(STRIDE // 32):
                ahead(&carry[start] + AHEAD + line * 32)
            for line in range(STRIDE // 32):
                ahead(&out[start] + AHEAD + line * 32)
            _carry[real](&values[start], &carry[start], min(<Py_ssize_t>STRIDE, size - start), &out[start])
            start += STRIDE
