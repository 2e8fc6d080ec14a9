# What locally connected layers and convolutions share: a window of kh x kw pixels at each position, no padding, no
# im2col. In arrays [H, W, C, N] a row of a window, kw C N numbers, is contiguous.

cimport cython
from cython.parallel cimport prange
from libc.stdint cimport uintptr_t
from libc.string cimport memset

from distbelief.kernels.activation cimport activate
from distbelief.kernels.product cimport Product, product
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport bands_of

ctypedef struct Geometry:
    Py_ssize_t height, width, channels, n  # x [height, width, channels, n]
    Py_ssize_t maps, kh, kw, stride
    Py_ssize_t oh, ow                      # y [oh, ow, maps, n]
    Py_ssize_t w_step, b_step              # elements from a position's weights or biases to the next's: 0 if tied


cdef inline int bands_for(const Geometry *g) noexcept nogil:
    """In how many bands to share one pass over all positions."""
    return bands_of(2.0 * g.oh * g.ow * g.maps * g.kh * g.kw * g.channels * g.n)


@cython.cdivision(True)  # a .pxd does not take the directives of the module that includes it
cdef inline Geometry geometry(const Py_ssize_t *x, const Py_ssize_t *w, Py_ssize_t stride,
                              const Py_ssize_t *y, bint tied) except *:
    """From the shapes of x, y and one position's w [maps, kh, kw, channels], which are checked against each other."""
    cdef Geometry g
    g.height, g.width, g.channels, g.n = x[0], x[1], x[2], x[3]
    g.maps, g.kh, g.kw, g.stride = w[0], w[1], w[2], stride
    assert w[3] == g.channels
    assert stride >= 1 and 1 <= g.kh <= g.height and 1 <= g.kw <= g.width
    g.oh, g.ow = (g.height - g.kh) // stride + 1, (g.width - g.kw) // stride + 1
    assert y[0] == g.oh and y[1] == g.ow and y[2] == g.maps and y[3] == g.n
    g.w_step = 0 if tied else g.maps * g.kh * g.kw * g.channels
    g.b_step = 0 if tied else g.maps
    return g


cdef inline void forward(const Geometry *g, const real *w, const real *b, const real *x, int activation,
                         real *y) noexcept nogil:
    """y = activation(w x + b). Threads share the rows of y."""
    cdef Py_ssize_t i
    for i in prange(g.oh, schedule="static", use_threads_if=bands_for(g) > 1):
        _forward_row(g, i, w, b, x, activation, y)


cdef inline void _forward_row(const Geometry *g, Py_ssize_t i, const real *w, const real *b, const real *x,
                              int activation, real *y) noexcept nogil:
    """At each position, w [maps, kh kw C] times the window [kh, kw C, N], one row of which follows another in x."""
    cdef Py_ssize_t j, m, position
    cdef Product p
    p.rows, p.columns, p.outer, p.inner = g.maps, g.n, g.kh, g.kw * g.channels
    p.a_i, p.a_o, p.a_k = g.kh * p.inner, p.inner, 1
    p.b_o, p.b_k, p.c_i, p.add = g.width * g.channels * g.n, g.n, g.n, False
    p.a_ahead, p.b_ahead, p.c_ahead, p.stream = g.w_step, 0, 0, False
    x += i * g.stride * p.b_o
    y += i * g.ow * g.maps * g.n
    for j in range(g.ow):
        position = i * g.ow + j
        product(&p, w + position * g.w_step, x, y)
        for m in range(g.maps):
            activate(y, b[position * g.b_step + m], g.n, activation)
            y += g.n
        x += g.stride * g.channels * g.n


# Positions one above the other share rows of dx. As many are taken together as make sums this long, so that dx is not
# read and written for every few multiplications.
cdef enum:
    DEPTH = 32


@cython.cdivision(True)
cdef inline Py_ssize_t together_for(Py_ssize_t maps) noexcept nogil:
    return (DEPTH + maps - 1) // maps


@cython.cdivision(True)
cdef inline void backward_to_inputs(const Geometry *g, const real *w, const real *dz, real *dx) noexcept nogil:
    """dx = the sum over positions of w' dz. Threads share the rows of dx."""
    cdef int bands = bands_for(g), band
    for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
        _backward_to_rows(g, w, dz, dx, g.height * band // bands, g.height * (band + 1) // bands)


@cython.cdivision(True)
cdef inline void _backward_to_rows(const Geometry *g, const real *w, const real *dz, real *dx, Py_ssize_t first,
                                   Py_ssize_t last) noexcept nogil:
    """Rows first..last-1 of dx. To each row of a window, [kw C, positions, maps] times dz [positions, maps, N]."""
    cdef Py_ssize_t block, i, j, h, top, stop, pixel = g.channels * g.n, together = together_for(g.maps)
    cdef Py_ssize_t row = g.width * pixel
    cdef Product p
    p.rows, p.columns, p.inner, p.add = g.kw * g.channels, g.n, g.maps, True
    p.a_i, p.a_o, p.a_k = 1, g.ow * g.w_step - g.stride * p.rows, g.kh * p.rows
    p.b_o, p.b_k, p.c_i = g.ow * g.maps * g.n, g.n, g.n
    p.a_ahead, p.b_ahead, p.c_ahead, p.stream = g.w_step, 0, 0, False
    memset(dx + first * row, 0, (last - first) * row * sizeof(real))
    for block in range((g.oh + together - 1) // together):
        i, stop = block * together, min((block + 1) * together, g.oh)
        for j in range(g.ow):
            for h in range(max(first, i * g.stride), min(last, (stop - 1) * g.stride + g.kh)):
                # The positions top..top+outer-1 of this column have row h in their windows.
                top = max(i, (h - g.kh + g.stride) // g.stride)
                p.outer = min(stop, h // g.stride + 1) - top
                if p.outer > 0:
                    product(&p, w + (top * g.ow + j) * g.w_step + (h - top * g.stride) * p.rows,
                            dz + (top * g.ow + j) * g.maps * g.n, dx + h * row + j * g.stride * pixel)


# A row of x [W C, N] is transposed to [N, W C] for the gradient by the weights, so that these, contiguous along kw C,
# are the vectors. The step between the rows of the result is an odd number of cache lines: powers of two would
# compete for the same places in the cache.
@cython.cdivision(True)
cdef inline Py_ssize_t transposed_step(Py_ssize_t width, Py_ssize_t channels) noexcept nogil:
    return ((width * channels + 15) // 16 | 1) * 16


cdef inline void transpose_row(const Geometry *g, const real *x, Py_ssize_t row, real *out) noexcept nogil:
    """out [n, step] = row `row` of x, transposed."""
    cdef Py_ssize_t size = g.width * g.channels, step = transposed_step(g.width, g.channels), block, k, j
    x += row * size * g.n
    for block in range(0, size, 16):  # a cache line of out at a time
        for j in range(g.n):
            for k in range(block, min(block + 16, size)):
                out[j * step + k] = x[k * g.n + j]


cdef inline real *aligned(real *scratch) noexcept nogil:
    """The first address in `scratch` where a cache line begins; 15 elements at most are lost."""
    return <real *>((<uintptr_t>scratch + 63) & ~<uintptr_t>63)
