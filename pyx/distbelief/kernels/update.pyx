# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Updates over intervals of flat vectors: what a shard does to its parameters, a replica to its copy.

A shard's gradient may be of the parameters' own type or bfloat16 (uint16). With a `shadow` (uint16) the same pass
writes the updated parameters to it, rounded to bfloat16.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt, sqrtf

from distbelief.kernels.ahead cimport AHEAD, STRIDE, ahead
from distbelief.kernels.bfloat16 cimport narrow_bits, narrow_normal, widen_bits
from distbelief.kernels.real cimport real, unsigned_short, wire
from distbelief.kernels.stream cimport streamed
from distbelief.kernels.threads cimport threads

cdef extern from "distbelief/kernels/lanes.h":
    bint lanes_adagrad(float *parameters, const void *gradient, bint narrow, float *squares, float rate, float floor,
                       unsigned short *shadow, Py_ssize_t size) nogil

# Elements per block: what an update has touched is still in the first-level cache when the shadow is written.
cdef Py_ssize_t BLOCK = 1024
# Threads share an update of more blocks than these; below, it is done before they have all begun.
cdef Py_ssize_t SHARED = 64


cdef inline bint _shared(Py_ssize_t blocks) noexcept nogil:
    return threads() > 1 and blocks > SHARED


cdef inline real _root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef int _same(wire gradient, real parameter) except -1:
    """Refuses to mix float32 and float64; bfloat16 goes with both."""
    if wire is not unsigned_short:
        if sizeof(wire) != sizeof(real):
            raise ValueError("the gradient is neither of the parameters' type nor bfloat16")
    return 0


cdef inline real _read(const wire *gradient, Py_ssize_t i, real like) noexcept nogil:
    if wire is unsigned_short:
        return <real>widen_bits(gradient[i])
    else:
        return <real>gradient[i]


cdef inline void _shade(const real *parameters, unsigned short *shadow, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    if real is float:
        narrow_normal(parameters, shadow, size)
    else:
        for i in range(size):
            shadow[i] = narrow_bits(<float>parameters[i])


def sgd(real[::1] parameters, const wire[::1] gradient, double rate, unsigned short[::1] shadow=None):
    """parameters -= rate gradient."""
    cdef Py_ssize_t block, blocks, first, last, i, size = parameters.shape[0]
    cdef real r = <real>rate
    cdef bint shaded = shadow is not None
    cdef const wire *g
    assert gradient.shape[0] == size and (not shaded or shadow.shape[0] == size)
    if size == 0:
        return
    _same[wire, real](gradient[0], parameters[0])
    blocks = (size + BLOCK - 1) // BLOCK
    with nogil:
        g = &gradient[0]
        for block in prange(blocks, schedule="static", use_threads_if=_shared(blocks)):
            first, last = block * BLOCK, min((block + 1) * BLOCK, size)
            for i in range(first, last):
                parameters[i] -= r * _read[wire, real](g, i, r)
            if shaded:
                _shade[real](&parameters[first], &shadow[first], last - first)


cdef inline void _adagrad(real *parameters, const wire *gradient, real *squares, real rate, real floor,
                          unsigned short *shadow, Py_ssize_t size) noexcept nogil:
    """One block. `shadow`: NULL, or where it is."""
    cdef Py_ssize_t i, line = 64 // sizeof(real), start = 0, stop
    cdef real x, s
    if real is float and wire is not double:
        if lanes_adagrad(parameters, gradient, wire is unsigned_short, squares, rate, floor, shadow, size):
            return
    while start < size:
        stop = min(start + STRIDE, size)
        for i in range(STRIDE * sizeof(real) // 64):
            ahead(parameters + start + AHEAD + i * line)
            ahead(squares + start + AHEAD + i * line)
        if shadow != NULL:
            ahead(shadow + start + AHEAD)
            ahead(shadow + start + AHEAD + STRIDE // 2)
        for i in range(start, stop):
            x = _read[wire, real](gradient, i, rate)
            s = squares[i] + x * x
            squares[i] = s
            s = s if s > floor else floor
            parameters[i] -= rate * (x / _root(s))  # the quotient is at most 1, whatever x
        start = stop
    if shadow != NULL:
        _shade[real](parameters, shadow, size)


def adagrad(real[::1] parameters, const wire[::1] gradient, real[::1] squares, double rate,
            unsigned short[::1] shadow=None):
    """squares += gradient^2, then parameters -= rate gradient / sqrt(squares) (Dean et al. 2012, section 4.1).

    The floor under the root, the smallest normal number, turns 0/0 into 0. It also shortens the steps of gradients
    whose squares underflow (below 1e-19 in float32); where squares overflow (above 1e19) a parameter stays put.
    """
    cdef Py_ssize_t block, blocks, first, last, size = parameters.shape[0]
    cdef real r = <real>rate, floor
    cdef const wire *g
    cdef unsigned short *h = NULL
    if real is float:
        floor = 1.17549435e-38
    else:
        floor = 2.2250738585072014e-308
    assert gradient.shape[0] == size and squares.shape[0] == size and (shadow is None or shadow.shape[0] == size)
    if size == 0:
        return
    _same[wire, real](gradient[0], parameters[0])
    blocks = (size + BLOCK - 1) // BLOCK
    with nogil:
        g = &gradient[0]
        if shadow is not None:
            h = &shadow[0]
        for block in prange(blocks, schedule="static", use_threads_if=_shared(blocks)):
            first, last = block * BLOCK, min((block + 1) * BLOCK, size)
            _adagrad[real, wire](&parameters[first], g + first, &squares[first], r, floor,
                                 h + first if h != NULL else NULL, last - first)
        streamed()


def momentum(real[::1] parameters, const wire[::1] gradient, real[::1] velocity, double rate, double decay,
             unsigned short[::1] shadow=None):
    """velocity = decay velocity + gradient, then parameters -= rate velocity (Polyak 1964)."""
    cdef Py_ssize_t block, blocks, first, last, i, size = parameters.shape[0]
    cdef real r = <real>rate, d = <real>decay
    cdef bint shaded = shadow is not None
    cdef const wire *g
    assert gradient.shape[0] == size and velocity.shape[0] == size and (not shaded or shadow.shape[0] == size)
    if size == 0:
        return
    _same[wire, real](gradient[0], parameters[0])
    blocks = (size + BLOCK - 1) // BLOCK
    with nogil:
        g = &gradient[0]
        for block in prange(blocks, schedule="static", use_threads_if=_shared(blocks)):
            first, last = block * BLOCK, min((block + 1) * BLOCK, size)
            for i in range(first, last):
                velocity[i] = d * velocity[i] + _read[wire, real](g, i, r)
                parameters[i] -= r * velocity[i]
            if shaded:
                _shade[real](&parameters[first], &shadow[first], last - first)


def compensate(const wire[::1] gradient, const real[::1] parameters, const real[::1] fetched, double strength,
               real[::1] out):
    """out = gradient + strength gradient^2 (parameters - fetched): delay compensation (Zheng et al. 2017, eq. 10).

    `fetched`: the parameters that the gradient was computed from. gradient^2 stands for the diagonal of the Hessian.
    """
    cdef Py_ssize_t i, size = parameters.shape[0]
    cdef real k = <real>strength, x
    cdef const wire *g
    assert gradient.shape[0] == size and fetched.shape[0] == size and out.shape[0] == size
    if size == 0:
        return
    _same[wire, real](gradient[0], parameters[0])
    with nogil:
        g = &gradient[0]
        for i in range(size):
            x = _read[wire, real](g, i, k)
            out[i] = x * (1 + k * x * (parameters[i] - fetched[i]))  # so x^2 does not overflow


def accrue(real[::1] parameters, real[::1] accrued, const real[::1] gradient, double rate):
    """A replica's local step: accrued += gradient and parameters -= rate gradient, in one pass.

    Returns whether every sum is finite, as none is where the gradient is not: a replica never pushes what is not.
    """
    assert gradient.shape[0] == parameters.shape[0] and accrued.shape[0] == parameters.shape[0]
    if gradient.shape[0] == 0:
        return True
    return not _accrue_all[real](&parameters[0], &accrued[0], &gradient[0], <real>rate, gradient.shape[0])


def add(real[::1] accrued, const real[::1] gradient):
    """accrued += gradient: the same without a step. Returns whether every sum is finite."""
    assert gradient.shape[0] == accrued.shape[0]
    if gradient.shape[0] == 0:
        return True
    return not _accrue_all[real](NULL, &accrued[0], &gradient[0], <real>0, gradient.shape[0])


cdef int _accrue_all(real *parameters, real *accrued, const real *gradient, real rate, Py_ssize_t size) noexcept:
    """`parameters`: NULL, if there is no step to be taken. Threads share the vectors."""
    cdef Py_ssize_t block, first, blocks = (size + BLOCK - 1) // BLOCK
    cdef int stray = 0
    for block in prange(blocks, schedule="static", nogil=True, use_threads_if=_shared(blocks)):
        first = block * BLOCK
        stray |= _accrue(NULL if parameters == NULL else parameters + first, accrued + first, gradient + first, rate,
                         min(BLOCK, size - first))
    return stray


cdef inline int _accrue(real *parameters, real *accrued, const real *gradient, real rate,
                        Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    cdef real g, sum
    cdef int stray = 0
    for i in range(size):
        g = gradient[i]
        sum = accrued[i] + g
        accrued[i] = sum
        if parameters != NULL:
            parameters[i] -= rate * g
        stray |= sum - sum != 0  # NaN, if the sum is a NaN or infinite, as it is if g is
    return stray


def weigh(real[::1] gradient, double weight):
    """gradient *= weight. Returns whether every number of the gradient was finite."""
    cdef Py_ssize_t i, size = gradient.shape[0]
    cdef real w = <real>weight, g
    cdef int stray = 0
    with nogil:
        for i in range(size):
            g = gradient[i]
            gradient[i] = w * g
            stray |= g - g != 0
    return not stray
