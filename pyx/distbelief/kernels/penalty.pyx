# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""L2 penalty on weights."""

from cython.parallel cimport prange

from distbelief.kernels.bfloat16 cimport widen_bits
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport bands_of

ctypedef unsigned short bits

ctypedef fused weight:
    float
    double
    bits

cdef enum:
    LANES = 16  # sums that run side by side, so that the loop is vectorised
    PARTS = 64  # of the weights, each with a sum of its own: the total is the same for any number of threads


cdef double _part(const weight *w, double penalty, real *gradient, Py_ssize_t size) noexcept nogil:
    """The sum of squares of a part; adds penalty * weights to its gradient."""
    cdef Py_ssize_t blocks = size // LANES, block, i, lane
    cdef double total = 0
    cdef double sums[LANES]
    cdef real rate = <real>penalty, x
    for lane in range(LANES):
        sums[lane] = 0
    for block in range(blocks):
        i = block * LANES
        for lane in range(LANES):
            x = _read[weight, real](w[i + lane], rate)
            sums[lane] += <double>x * x
            gradient[i + lane] += rate * x
    for i in range(blocks * LANES, size):
        x = _read[weight, real](w[i], rate)
        total += <double>x * x
        gradient[i] += rate * x
    for lane in range(LANES):
        total += sums[lane]
    return total


cdef inline real _read(weight w, real like) noexcept nogil:
    if weight is bits:
        return <real>widen_bits(w)
    else:
        return <real>w


def l2_penalty(const weight[::1] weights, double penalty, real[::1] gradient):
    """Returns penalty/2 times the sum of squares of `weights`, and adds penalty * weights to `gradient`.

    The weights are of the gradient's type or bfloat16 (uint16). Threads share them.
    """
    cdef Py_ssize_t size = weights.shape[0], part, first
    cdef double total = 0
    cdef double sums[PARTS]
    cdef bint threaded = bands_of(4.0 * size) > 1
    assert gradient.shape[0] == size
    if weight is not bits:
        if sizeof(weight) != sizeof(real):
            raise ValueError("the weights are neither of the gradient's type nor bfloat16")
    if size == 0:
        return 0.0
    with nogil:
        for part in prange(PARTS, schedule="static", use_threads_if=threaded):
            first = size * part // PARTS
            sums[part] = _part[weight, real](&weights[0] + first, penalty, &gradient[0] + first,
                                             size * (part + 1) // PARTS - first)
        for part in range(PARTS):
            total += sums[part]
    return penalty / 2 * total
