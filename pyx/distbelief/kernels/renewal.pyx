# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What has been fetched becomes a replica's parameters."""

from distbelief.kernels.bfloat16 cimport widen_bits
from distbelief.kernels.real cimport real, unsigned_short, wire
from distbelief.kernels.stream cimport stream, streamed

cdef extern from "distbelief/kernels/lanes.h":
    bint lanes_renew(const void *values, bint narrow, const float *gradient, float rate, float *out,
                     Py_ssize_t size) nogil

# Bytes that the caches hold beside all else. What is larger is best written past them: nobody finds it there later.
CACHED = 16 << 20

# Elements that are computed in the first-level cache before they go past it.
cdef enum:
    BLOCK = 1024


cdef inline void _renew(const wire *values, const real *gradient, real rate, real *out,
                        Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    if gradient != NULL:
        for i in range(size):
            if wire is unsigned_short:
                out[i] = <real>widen_bits(values[i]) - rate * gradient[i]
            else:
                out[i] = <real>values[i] - rate * gradient[i]
    else:
        for i in range(size):
            if wire is unsigned_short:
                out[i] = <real>widen_bits(values[i])
            else:
                out[i] = <real>values[i]


def renew(const wire[::1] values, real[::1] out, const real[::1] gradient=None, double rate=0.0, bint past=False):
    """out = values - rate gradient, or out = values. `values` may be of another type: bfloat16 as uint16.

    `past`: write `out` past the caches. It takes two thirds of the time where `out` is part of more than they hold.
    """
    cdef Py_ssize_t first = 0, n, size = out.shape[0]
    cdef real block[BLOCK]
    cdef real r = <real>rate
    cdef const real *g = NULL
    assert values.shape[0] == size and (gradient is None or gradient.shape[0] == size)
    if size == 0:
        return
    if gradient is not None:
        g = &gradient[0]
    with nogil:
        if not past:
            _renew[wire, real](&values[0], g, r, &out[0], size)
            first = size
        elif real is float and wire is not double:
            if lanes_renew(&values[0], wire is unsigned_short, g, r, &out[0], size):
                first = size
        if first < size and wire is real and g == NULL:
            stream(&out[0], &values[0], size * sizeof(real))
            first = size
        while first < size:
            n = min(<Py_ssize_t>BLOCK, size - first)
            _renew[wire, real](&values[first], g, r, block, n)
            stream(&out[first], block, n * sizeof(real))
            if g != NULL:
                g += n
            first += n
        streamed()


def copy_past(const unsigned char[::1] values, unsigned char[::1] out):
    """out = values, bytes, past the caches: where `out` is part of more than they hold."""
    cdef Py_ssize_t size = out.shape[0]
    assert values.shape[0] == size
    if size == 0:
        return
    with nogil:
        stream(&out[0], &values[0], size)
        streamed()
