# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Locally connected layer: a filter of its own at each position (Dean et al. 2012, section 5), any stride, no padding.

Arrays are C-contiguous, the batch last: x [H, W, C, N], y [oh, ow, maps, N], oh = (H - kh) // stride + 1, ow alike;
w [oh, ow, maps, kh, kw, C], b [oh, ow, maps]. Rows and columns of x that no window reaches are not read.
"""

from cython.parallel cimport prange

from distbelief.kernels.activation cimport derive
from distbelief.kernels.filters cimport (Geometry, aligned, backward_to_inputs, bands_for, forward, geometry,
                                         transpose_row, transposed_step)
from distbelief.kernels.product cimport Product, product
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport threads


def local_scratch(Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels, Py_ssize_t n, Py_ssize_t kh):
    """Elements of working memory of local_backward: `kh` rows of the images for each thread that OpenMP may use."""
    return threads() * kh * n * transposed_step(width, channels) + 15


def local_forward(const real[:, :, :, :, :, ::1] w, const real[:, :, ::1] b, const real[:, :, :, ::1] x,
                  Py_ssize_t stride, int activation, real[:, :, :, ::1] y):
    """y = activation(w x + b), at each position with its own w and b."""
    cdef Geometry g = geometry(x.shape, w.shape + 2, stride, y.shape, False)
    assert w.shape[0] == g.oh and w.shape[1] == g.ow
    assert b.shape[0] == g.oh and b.shape[1] == g.ow and b.shape[2] == g.maps
    if g.n and g.maps and g.channels:
        with nogil:
            forward(&g, &w[0, 0, 0, 0, 0, 0], &b[0, 0, 0], &x[0, 0, 0, 0], activation, &y[0, 0, 0, 0])


def local_backward(const real[:, :, :, :, :, ::1] w, const real[:, :, :, ::1] x, const real[:, :, :, ::1] y,
                   Py_ssize_t stride, int activation, real[:, :, :, ::1] dy, real[:, :, :, :, :, ::1] dw,
                   real[:, :, ::1] db, real[:, :, :, ::1] dx, real[::1] scratch):
    """Gradients of a loss by w, b and x from that by y; `dy` is overwritten with the gradient by w x + b.

    dw, db and dx are overwritten, not added to. A `dx` of no rows is left alone: the first layer needs none.
    `scratch` has at least local_scratch(H, W, C, N, kh) elements; with fewer, fewer threads are used.
    """
    cdef Geometry g = geometry(x.shape, w.shape + 2, stride, y.shape, False)
    cdef Py_ssize_t k
    for k in range(6):
        assert dw.shape[k] == w.shape[k]
    for k in range(4):
        assert dx.shape[0] == 0 or dx.shape[k] == x.shape[k]
    _by_weights[real](x, y, stride, activation, dy, dw, db, scratch)
    if dx.shape[0] and g.n and g.maps and g.channels:
        with nogil:
            backward_to_inputs(&g, &w[0, 0, 0, 0, 0, 0], &dy[0, 0, 0, 0], &dx[0, 0, 0, 0])


def local_backward_to_weights(const real[:, :, :, ::1] x, const real[:, :, :, ::1] y, Py_ssize_t stride,
                              int activation, real[:, :, :, ::1] dy, real[:, :, :, :, :, ::1] dw,
                              real[:, :, ::1] db, real[::1] scratch):
    """The part of local_backward that needs no weights: dw, db, and in `dy` the gradient by w x + b."""
    _by_weights[real](x, y, stride, activation, dy, dw, db, scratch)


cdef int _by_weights(const real[:, :, :, ::1] x, const real[:, :, :, ::1] y, Py_ssize_t stride, int activation,
                     real[:, :, :, ::1] dy, real[:, :, :, :, :, ::1] dw, real[:, :, ::1] db,
                     real[::1] scratch) except -1:
    cdef Geometry g = geometry(x.shape, dw.shape + 2, stride, y.shape, False)
    cdef Py_ssize_t band = g.kh * g.n * transposed_step(g.width, g.channels), k
    cdef int bands, i
    assert dw.shape[0] == g.oh and dw.shape[1] == g.ow
    assert db.shape[0] == g.oh and db.shape[1] == g.ow and db.shape[2] == g.maps
    for k in range(4):
        assert dy.shape[k] == y.shape[k]
    if not (g.n and g.maps and g.channels):
        dw[...] = 0
        db[...] = 0
        return 0
    bands = min(bands_for(&g), (scratch.shape[0] - 15) // band)
    assert bands >= 1
    with nogil:
        for i in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            _backward_to_weights(&g, &x[0, 0, 0, 0], &y[0, 0, 0, 0], activation, &dy[0, 0, 0, 0], &dw[0, 0, 0, 0, 0, 0],
                                 &db[0, 0, 0], aligned(&scratch[0]) + i * band, g.oh * i // bands,
                                 g.oh * (i + 1) // bands)
    return 0


cdef void _backward_to_weights(const Geometry *g, const real *x, const real *y, int activation, real *dy, real *dw,
                               real *db, real *scratch, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Rows first..last-1 of dy, dw and db. At each position and row of its window, dz [maps, N] times [N, kw C].

    `scratch` holds the kh rows of x that a row of windows needs, transposed; each takes the place of the one that
    is needed no more.
    """
    cdef Py_ssize_t i, j, u, m, row = 0, step = transposed_step(g.width, g.channels), position, block
    cdef Product p
    p.rows, p.columns, p.outer, p.inner = g.maps, g.kw * g.channels, 1, g.n
    p.a_i, p.a_o, p.a_k = g.n, 0, 1
    p.b_o, p.b_k, p.c_i, p.add = 0, step, g.kh * p.columns, False
    p.a_ahead, p.b_ahead, p.c_ahead, p.stream = 0, 0, g.w_step, False
    for i in range(first, last):
        for row in range(max(row, i * g.stride), i * g.stride + g.kh):
            transpose_row(g, x, row, scratch + row % g.kh * g.n * step)
        row += 1
        for j in range(g.ow):
            position = i * g.ow + j
            block = position * g.maps * g.n
            for m in range(g.maps):
                db[position * g.maps + m] = derive(y + block + m * g.n, dy + block + m * g.n, g.n, activation)
            for u in range(g.kh):
                product(&p, dy + block, scratch + (i * g.stride + u) % g.kh * g.n * step + j * g.stride * g.channels,
                        dw + position * g.w_step + u * p.columns)
