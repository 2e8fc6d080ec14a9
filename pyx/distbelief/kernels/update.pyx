# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Updates over intervals of flat vectors: what a shard does to its parameters, a replica to its copy."""

from libc.math cimport sqrt, sqrtf

from distbelief.kernels.real cimport real


cdef inline real _root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


def sgd(real[::1] parameters, const real[::1] gradient, double rate):
    """parameters -= rate gradient."""
    cdef Py_ssize_t i, size = parameters.shape[0]
    cdef real r = <real>rate
    assert gradient.shape[0] == size
    with nogil:
        for i in range(size):
            parameters[i] -= r * gradient[i]


def adagrad(real[::1] parameters, const real[::1] gradient, real[::1] squares, double rate):
    """squares += gradient^2, then parameters -= rate gradient / sqrt(squares) (Dean et al. 2012, section 4.1).

    The floor under the root, the smallest normal number, turns 0/0 into 0. It also shortens the steps of gradients
    whose squares underflow (below 1e-19 in float32); where squares overflow (above 1e19) a parameter stays put.
    """
    cdef Py_ssize_t i, size = parameters.shape[0]
    cdef real r = <real>rate, g, s, floor
    if real is float:
        floor = 1.17549435e-38
    else:
        floor = 2.2250738585072014e-308
    assert gradient.shape[0] == size and squares.shape[0] == size
    with nogil:
        for i in range(size):
            g = gradient[i]
            s = squares[i] + g * g
            squares[i] = s
            s = s if s > floor else floor
            parameters[i] -= r * g / _root(s)


def accrue(real[::1] parameters, real[::1] accrued, const real[::1] gradient, double rate):
    """A replica's local step: accrued += gradient and parameters -= rate gradient, in one pass.

    Returns whether every number of the gradient is finite: a replica never pushes one that is not.
    """
    cdef Py_ssize_t i, size = parameters.shape[0]
    cdef real r = <real>rate, g
    cdef int stray = 0
    assert gradient.shape[0] == size and accrued.shape[0] == size
    with nogil:
        for i in range(size):
            g = gradient[i]
            accrued[i] += g
            parameters[i] -= r * g
            stray |= g - g != 0  # NaN, if g is a NaN or infinite
    return not stray


def all_finite(const real[::1] values):
    """Whether no number of `values` is a NaN or infinite."""
    cdef Py_ssize_t i
    cdef int stray = 0
    with nogil:
        for i in range(values.shape[0]):
            stray |= values[i] - values[i] != 0
    return not stray
