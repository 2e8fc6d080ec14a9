# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""How large numbers are, and whether they are numbers at all.

Without its sign, a float's bits are an integer that grows with it; infinity comes after all numbers, NaNs come last.
Compilers take the largest of integers by registers, of floats they do not, for the NaNs.
"""

from libc.math cimport INFINITY
from libc.string cimport memcpy

from distbelief.kernels.bfloat16 cimport widen_bits
from distbelief.kernels.real cimport real, unsigned_short, wire

ctypedef unsigned int unsigned_int
ctypedef unsigned long long unsigned_long_long

ctypedef fused bits:
    unsigned_short
    unsigned_int
    unsigned_long_long


cdef bits _most(const bits *values, Py_ssize_t size) noexcept nogil:
    """The largest, but for the sign."""
    cdef bits unsigned = (<bits>~<bits>0) >> 1, x, most = 0
    cdef Py_ssize_t i
    for i in range(size):
        x = values[i] & unsigned
        most = x if x > most else most
    return most


cdef double _largest(const wire *values, Py_ssize_t size) noexcept nogil:
    cdef unsigned_int single
    cdef unsigned_long_long twice
    cdef wire x
    if wire is unsigned_short:
        x = _most[unsigned_short](values, size)
        return <double>widen_bits(x)
    elif wire is float:
        single = _most[unsigned_int](<const unsigned_int *>values, size)
        memcpy(&x, &single, sizeof(x))
        return <double>x
    else:
        twice = _most[unsigned_long_long](<const unsigned_long_long *>values, size)
        memcpy(&x, &twice, sizeof(x))
        return x


def largest(const wire[::1] values):
    """The largest absolute value, 0 of none, infinite if there is a NaN; uint16 is bfloat16."""
    cdef double most = 0
    if values.shape[0]:
        with nogil:
            most = _largest[wire](&values[0], values.shape[0])
    return most if most == most else INFINITY


def all_finite(const real[::1] values):
    """Whether no number of `values` is a NaN or infinite."""
    return largest(values) < INFINITY
