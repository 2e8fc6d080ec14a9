# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""L2 penalty on weights."""

from distbelief.kernels.real cimport real

# Sums that run side by side, so that the loop is vectorised.
cdef enum:
    LANES = 16


def l2_penalty(const real[::1] weights, double penalty, real[::1] gradient):
    """Returns penalty/2 times the sum of squares of `weights`, and adds penalty * weights to `gradient`."""
    cdef Py_ssize_t size = weights.shape[0], blocks = size // LANES, block, i, lane
    cdef double total = 0
    cdef double sums[LANES]
    cdef real rate = <real>penalty
    assert gradient.shape[0] == size
    with nogil:
        for lane in range(LANES):
            sums[lane] = 0
        for block in range(blocks):
            i = block * LANES
            for lane in range(LANES):
                sums[lane] += <double>weights[i + lane] * weights[i + lane]
                gradient[i + lane] += rate * weights[i + lane]
        for i in range(blocks * LANES, size):
            total += <double>weights[i] * weights[i]
            gradient[i] += rate * weights[i]
        for lane in range(LANES):
            total += sums[lane]
    return penalty / 2 * total
