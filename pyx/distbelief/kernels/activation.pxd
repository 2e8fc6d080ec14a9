# Activations of one row of outputs, applied where the row is still in the cache.

from distbelief.kernels.exponential cimport hyperbolic_tangent, logistic
from distbelief.kernels.real cimport real

cdef enum:
    LINEAR = 0
    SIGMOID = 1
    TANH = 2
    RELU = 3

cdef enum:
    LANES = 16


cdef inline void activate(real *y, real bias, Py_ssize_t n, int activation) noexcept nogil:
    """y = activation(y + bias) over one row of n outputs."""
    cdef Py_ssize_t j
    cdef real z
    if activation == LINEAR:
        for j in range(n):
            y[j] = y[j] + bias
    elif activation == SIGMOID:
        for j in range(n):
            y[j] = logistic[real](y[j] + bias)
    elif activation == TANH:
        for j in range(n):
            y[j] = hyperbolic_tangent[real](y[j] + bias)
    else:
        for j in range(n):
            z = y[j] + bias
            y[j] = <real>0 if z < 0 else z  # this way round a NaN stays a NaN


cdef inline real derive(const real *y, real *dy, Py_ssize_t n, int activation) noexcept nogil:
    """dy *= activation'(z), told from y = activation(z), over one row; returns the row's sum (the bias gradient)."""
    cdef Py_ssize_t j
    if activation == SIGMOID:
        for j in range(n):
            dy[j] = dy[j] * y[j] * (<real>1 - y[j])
    elif activation == TANH:
        for j in range(n):
            dy[j] = dy[j] * (<real>1 - y[j] * y[j])
    elif activation == RELU:
        for j in range(n):
            dy[j] = dy[j] if y[j] > 0 else <real>0
    return <real>sum_row(dy, n)


cdef inline double sum_row(const real *row, Py_ssize_t n) noexcept nogil:
    """In 16 sums side by side, in float64: one alone waits for each addition to end before the next begins."""
    cdef double sums[LANES]
    cdef double total = 0
    cdef Py_ssize_t start = 0, j
    for j in range(LANES):
        sums[j] = 0
    while start + LANES <= n:
        for j in range(LANES):
            sums[j] += row[start + j]
        start += LANES
    for j in range(LANES):
        total += sums[j]
    for j in range(start, n):
        total += row[j]
    return total
