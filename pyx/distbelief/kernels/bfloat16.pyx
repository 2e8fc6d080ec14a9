# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""bfloat16 as arrays of uint16, which hold the upper halves of float32 numbers."""

from cython.parallel cimport prange

from distbelief.kernels.ahead cimport AHEAD, STRIDE, ahead
from distbelief.kernels.bfloat16 cimport narrow_bits, widen_bits
from distbelief.kernels.real cimport real
from distbelief.kernels.stream cimport stream, streamed
from distbelief.kernels.threads cimport band_start, bands_of

cdef extern from "distbelief/kernels/lanes.h":
    bint lanes_carry(const float *values, unsigned short *carry, float largest, Py_ssize_t size,
                     unsigned short *out) nogil


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


cdef enum:
    BLOCK = 1024  # elements that are rounded in the first-level cache before they go past it

cdef float LARGEST = 3.38953138925153547590e38  # in bfloat16, 0x7F7F


cdef void _carry(const real *values, unsigned short *carry, Py_ssize_t size, unsigned short *out) noexcept nogil:
    cdef Py_ssize_t i
    cdef real sum, rest
    cdef unsigned short bits
    for i in range(size):
        sum = values[i] + widen_bits(carry[i])
        sum = LARGEST if sum > LARGEST else sum  # a NaN stays one
        sum = -LARGEST if sum < -LARGEST else sum
        bits = narrow_bits(<float>sum)
        out[i] = bits
        rest = sum - widen_bits(bits)
        carry[i] = narrow_bits(<float>(rest if rest == rest else 0))


cdef void _carry_block(const real *values, unsigned short *carry, Py_ssize_t size, unsigned short *out) noexcept nogil:
    cdef Py_ssize_t start = 0, line
    while start < size:
        for line in range(STRIDE * sizeof(real) // 64):
            ahead(values + start + AHEAD + line * (64 // sizeof(real)))
        for line in range(STRIDE // 32):
            ahead(carry + start + AHEAD + line * 32)
        _carry[real](values + start, carry + start, min(<Py_ssize_t>STRIDE, size - start), out + start)
        start += STRIDE


def narrow_carrying(const real[::1] values, unsigned short[::1] carry, unsigned short[::1] out):
    """out = values + carry, rounded; carry = what the rounding lost, for the next time, itself in bfloat16.

    The carry is at most 2^-8 of a sum, and what rounding it loses at most 2^-8 of that: of either sign, so that it does
    not add up. A sum beyond the largest bfloat16 becomes that, and what is beyond is lost; a sum or a rest below all
    normal numbers may become 0. A NaN stays one, and is not carried. `out` is written past the caches: into them, where
    another core has read it last, took up to four times as long.
    """
    cdef Py_ssize_t start = 0, n, size = values.shape[0]
    cdef unsigned short block[BLOCK]
    assert carry.shape[0] == size and out.shape[0] == size
    with nogil:
        if real is float:
            if lanes_carry(&values[0], &carry[0], LARGEST, size, &out[0]):
                start = size
        while start < size:
            n = min(<Py_ssize_t>BLOCK, size - start)
            _carry_block[real](&values[start], &carry[start], n, block)
            stream(&out[start], block, n * sizeof(unsigned short))
            start += n
        streamed()
