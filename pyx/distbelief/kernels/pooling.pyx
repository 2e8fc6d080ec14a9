# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Pooling: each output is a function of a window of one map. No padding: what no window reaches is not read.

Arrays are C-contiguous, the batch last: x [H, W, C, N], y [oh, ow, C, N], oh = (H - kh) // stride + 1, ow alike.
l2: sqrt of the window's sum of squares (Le et al. 2012), max, average. Windows may overlap. Loops run over the
contiguous C N numbers of a pixel; threads share rows, and no two write the same one.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt, sqrtf

from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport bands_of

# The numbers of the functions; POOLINGS names them for Python.
cdef enum:
    L2 = 0
    MAX = 1
    AVERAGE = 2

# Numbers of a pixel that are held in registers while the window is read.
cdef enum:
    BLOCK = 32

POOLINGS = {"l2": L2, "max": MAX, "average": AVERAGE}


cdef inline real _root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef inline void _pixel(const real *x, Py_ssize_t width, Py_ssize_t size, Py_ssize_t kh, Py_ssize_t kw, int function,
                        Py_ssize_t count, real *y) noexcept nogil:
    """`count` <= BLOCK of a pixel's numbers; x begins at the first pixel of its window. They are held in registers."""
    cdef Py_ssize_t u, v, i
    cdef const real *p
    cdef real share = <real>1 / <real>(kh * kw)
    cdef real taken[BLOCK]
    for i in range(count):
        taken[i] = x[i] if function == MAX else <real>0
    for u in range(kh):
        for v in range(kw):
            p = x + (u * width + v) * size
            if function == L2:
                for i in range(count):
                    taken[i] += p[i] * p[i]
            elif function == MAX:
                for i in range(count):
                    taken[i] = p[i] if (p[i] > taken[i]) | (p[i] != p[i]) else taken[i]  # a NaN wins
            else:
                for i in range(count):
                    taken[i] += p[i]
    for i in range(count):
        y[i] = _root(taken[i]) if function == L2 else taken[i] * share if function == AVERAGE else taken[i]


cdef void _forward_row(const real *x, Py_ssize_t width, Py_ssize_t size, Py_ssize_t kh, Py_ssize_t kw,
                       Py_ssize_t stride, int function, real *y, Py_ssize_t ow) noexcept nogil:
    """One row of outputs; x begins at the first row of its windows. Pixels have `size` = C N numbers."""
    cdef Py_ssize_t j, block, first, blocks = size // BLOCK, done = blocks * BLOCK
    for j in range(ow):
        for block in range(blocks):
            first = block * BLOCK
            # Written out for each function: count and function are constants when this is compiled.
            if function == L2:
                _pixel(x + first, width, size, kh, kw, L2, BLOCK, y + first)
            elif function == MAX:
                _pixel(x + first, width, size, kh, kw, MAX, BLOCK, y + first)
            else:
                _pixel(x + first, width, size, kh, kw, AVERAGE, BLOCK, y + first)
        _pixel(x + done, width, size, kh, kw, function, size - done, y + done)
        x += stride * size
        y += size


def pool_forward(const real[:, :, :, ::1] x, Py_ssize_t kh, Py_ssize_t kw, Py_ssize_t stride, int function,
                 real[:, :, :, ::1] y):
    """y = the function of each window of kh x kw pixels, every `stride` pixels."""
    cdef Py_ssize_t width = x.shape[1], size = x.shape[2] * x.shape[3], oh = y.shape[0], ow = y.shape[1], i
    cdef bint threaded = bands_of(10.0 * x.shape[0] * width * size) > 1
    _check(x.shape, y.shape, kh, kw, stride)
    if size == 0:
        return
    for i in prange(oh, schedule="static", nogil=True, use_threads_if=threaded):
        _forward_row[real](&x[i * stride, 0, 0, 0], width, size, kh, kw, stride, function, &y[i, 0, 0, 0], ow)


cdef int _check(const Py_ssize_t *below, const Py_ssize_t *above, Py_ssize_t kh, Py_ssize_t kw,
                Py_ssize_t stride) except -1:
    assert stride >= 1 and 1 <= kh <= below[0] and 1 <= kw <= below[1]
    assert above[0] == (below[0] - kh) // stride + 1 and above[1] == (below[1] - kw) // stride + 1
    assert above[2] == below[2] and above[3] == below[3]
    return 0


cdef void _scale(const real *y, real *dy, Py_ssize_t size, int function, real share) noexcept nogil:
    """What every pixel of the window takes of dy: dy / y (0 where y = 0), to be multiplied by x, or its share."""
    cdef Py_ssize_t i
    if function == L2:
        for i in range(size):
            dy[i] = <real>0 if y[i] == 0 else dy[i] / y[i]
    else:
        for i in range(size):
            dy[i] *= share


cdef void _gather_row(const real *x, const real *dy, Py_ssize_t h, Py_ssize_t width, Py_ssize_t size, Py_ssize_t kh,
                      Py_ssize_t kw, Py_ssize_t stride, int function, Py_ssize_t oh, Py_ssize_t ow,
                      real *dx) noexcept nogil:
    """Row h of dx: the sum of the scaled dy of all windows that a pixel lies in, for l2 times x."""
    cdef Py_ssize_t i, j, k, w, first_j, first_i = _first(h, kh, stride)
    cdef Py_ssize_t last_i = min(h // stride, oh - 1), last_j
    cdef const real *d
    for w in range(width):
        first_j, last_j = _first(w, kw, stride), min(w // stride, ow - 1)
        for k in range(size):
            dx[k] = 0
        for i in range(first_i, last_i + 1):
            for j in range(first_j, last_j + 1):
                d = dy + (i * ow + j) * size
                for k in range(size):
                    dx[k] += d[k]
        if function == L2:
            for k in range(size):
                dx[k] *= x[k]
        x += size
        dx += size


cdef inline Py_ssize_t _first(Py_ssize_t place, Py_ssize_t window, Py_ssize_t stride) noexcept nogil:
    """The first window that reaches `place`."""
    return 0 if place < window else (place - window) // stride + 1


cdef inline void _award(const real *x, const real *y, const real *dy, Py_ssize_t width, Py_ssize_t size, Py_ssize_t kh,
                        Py_ssize_t kw, Py_ssize_t count, real *dx) noexcept nogil:
    """Add dy, `count` <= BLOCK of a pixel's numbers, to the first pixel of the window that is y."""
    cdef Py_ssize_t u, v, i
    cdef const real *p
    cdef real *d
    cdef real top[BLOCK]
    cdef real left[BLOCK]
    for i in range(count):
        top[i], left[i] = y[i], dy[i]
    for u in range(kh):
        for v in range(kw):
            p, d = x + (u * width + v) * size, dx + (u * width + v) * size
            for i in range(count):
                d[i] += left[i] if p[i] == top[i] else <real>0
                left[i] = <real>0 if p[i] == top[i] else left[i]


cdef void _award_row(const real *x, const real *y, const real *dy, Py_ssize_t width, Py_ssize_t size, Py_ssize_t kh,
                     Py_ssize_t kw, Py_ssize_t stride, Py_ssize_t ow, real *dx) noexcept nogil:
    """One row of dy; x and dx begin at the first row of its windows."""
    cdef Py_ssize_t j, block, first, blocks = size // BLOCK, done = blocks * BLOCK
    for j in range(ow):
        for block in range(blocks):
            first = block * BLOCK
            _award(x + first, y + first, dy + first, width, size, kh, kw, BLOCK, dx + first)
        _award(x + done, y + done, dy + done, width, size, kh, kw, size - done, dx + done)
        x += stride * size
        dx += stride * size
        y += size
        dy += size


def pool_backward(const real[:, :, :, ::1] x, const real[:, :, :, ::1] y, Py_ssize_t kh, Py_ssize_t kw,
                  Py_ssize_t stride, int function, real[:, :, :, ::1] dy, real[:, :, :, ::1] dx):
    """Overwrites dx with the gradient by x, 0 where no window reaches, and spoils dy.

    l2: dy x / y, defined as 0 where y = 0. max: dy goes to the window's first maximum, row by row. A `dx` of no rows
    is left alone.
    """
    cdef Py_ssize_t height = x.shape[0], width = x.shape[1], size = x.shape[2] * x.shape[3]
    cdef Py_ssize_t oh = y.shape[0], ow = y.shape[1], i, h, apart, turn
    cdef real share = <real>1 / <real>(kh * kw)
    cdef bint threaded = bands_of(10.0 * height * width * size) > 1
    _check(x.shape, y.shape, kh, kw, stride)
    for i in range(4):
        assert dy.shape[i] == y.shape[i] and (dx.shape[0] == 0 or dx.shape[i] == x.shape[i])
    if size == 0 or dx.shape[0] == 0:
        return
    if function != MAX:
        for i in prange(oh, schedule="static", nogil=True, use_threads_if=threaded):
            _scale[real](&y[i, 0, 0, 0], &dy[i, 0, 0, 0], ow * size, function, share)
        for h in prange(height, schedule="static", nogil=True, use_threads_if=threaded):
            _gather_row[real](&x[h, 0, 0, 0], &dy[0, 0, 0, 0], h, width, size, kh, kw, stride, function, oh, ow,
                              &dx[h, 0, 0, 0])
        return
    for h in prange(height, schedule="static", nogil=True, use_threads_if=threaded):
        _clear[real](&dx[h, 0, 0, 0], width * size)
    # Rows of windows that are `apart` do not overlap: they may be awarded at once.
    apart = (kh + stride - 1) // stride
    for turn in range(apart):
        for i in prange(turn, oh, apart, schedule="static", nogil=True, use_threads_if=threaded):
            _award_row[real](&x[i * stride, 0, 0, 0], &y[i, 0, 0, 0], &dy[i, 0, 0, 0], width, size, kh, kw, stride, ow,
                             &dx[i * stride, 0, 0, 0])


cdef void _clear(real *x, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        x[i] = 0
