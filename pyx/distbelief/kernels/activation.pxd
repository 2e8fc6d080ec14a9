# Activations of one row of outputs, applied where the row is still in the cache.

cimport cython
from libc.math cimport exp, expf, tanh, tanhf

from distbelief.kernels.real cimport real

cdef enum:
    LINEAR = 0
    SIGMOID = 1
    TANH = 2
    RELU = 3


@cython.cdivision(True)
cdef inline real _sigmoid(real z) noexcept nogil:
    # exp(-z) overflows to infinity for very negative z, and 1/(1 + inf) is the right 0.
    if real is float:
        return <real>1 / (<real>1 + expf(-z))
    else:
        return <real>1 / (<real>1 + exp(-z))


cdef inline real _tanh(real z) noexcept nogil:
    if real is float:
        return tanhf(z)
    else:
        return tanh(z)


cdef inline void activate(real *y, real bias, Py_ssize_t n, int activation) noexcept nogil:
    """y = activation(y + bias) over one row of n outputs."""
    cdef Py_ssize_t j
    cdef real z
    if activation == LINEAR:
        for j in range(n):
            y[j] = y[j] + bias
    elif activation == SIGMOID:
        for j in range(n):
            y[j] = _sigmoid(y[j] + bias)
    elif activation == TANH:
        for j in range(n):
            y[j] = _tanh(y[j] + bias)
    else:
        for j in range(n):
            z = y[j] + bias
            y[j] = <real>0 if z < 0 else z  # this way round a NaN stays a NaN


cdef inline real derive(const real *y, real *dy, Py_ssize_t n, int activation) noexcept nogil:
    """dy *= activation'(z), told from y = activation(z), over one row; returns the row's sum (the bias gradient)."""
    cdef Py_ssize_t j
    cdef double total = 0
    if activation == SIGMOID:
        for j in range(n):
            dy[j] = dy[j] * y[j] * (<real>1 - y[j])
    elif activation == TANH:
        for j in range(n):
            dy[j] = dy[j] * (<real>1 - y[j] * y[j])
    elif activation == RELU:
        for j in range(n):
            dy[j] = dy[j] if y[j] > 0 else <real>0
    for j in range(n):
        total += dy[j]
    return <real>total
