# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Convolution: the same filters at each position, any stride, no padding.

Arrays are C-contiguous, the batch last: x [H, W, C, N], y [oh, ow, maps, N], oh = (H - kh) // stride + 1, ow alike;
w [maps, kh, kw, C], b [maps]. Rows and columns of x that no window reaches are not read.
"""

from cython.parallel cimport prange
from libc.string cimport memset

from distbelief.kernels.activation cimport derive
from distbelief.kernels.filters cimport (Geometry, aligned, backward_to_inputs, bands_for, forward, geometry,
                                         transpose_row, transposed_step)
from distbelief.kernels.product cimport Product, product
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport threads


def convolution_scratch(Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels, Py_ssize_t n, Py_ssize_t kh):
    """Elements of working memory of convolution_backward: a row of the images for each thread that OpenMP may use."""
    return min(threads(), kh) * n * transposed_step(width, channels) + 15


def convolution_forward(const real[:, :, :, ::1] w, const real[::1] b, const real[:, :, :, ::1] x,
                        Py_ssize_t stride, int activation, real[:, :, :, ::1] y):
    """y = activation(w x + b) at each position."""
    cdef Geometry g = geometry(x.shape, w.shape, stride, y.shape, True)
    assert b.shape[0] == g.maps
    if g.n and g.maps and g.channels:
        with nogil:
            forward(&g, &w[0, 0, 0, 0], &b[0], &x[0, 0, 0, 0], activation, &y[0, 0, 0, 0])


def convolution_backward(const real[:, :, :, ::1] w, const real[:, :, :, ::1] x, const real[:, :, :, ::1] y,
                         Py_ssize_t stride, int activation, real[:, :, :, ::1] dy, real[:, :, :, ::1] dw,
                         real[::1] db, real[:, :, :, ::1] dx, real[::1] scratch):
    """Gradients of a loss by w, b and x from that by y; `dy` is overwritten with the gradient by w x + b.

    dw, db and dx are overwritten, not added to. A `dx` of no rows is left alone: the first layer needs none.
    `scratch` has at least convolution_scratch(H, W, C, N, kh) elements; with fewer, fewer threads are used.
    """
    cdef Geometry g = geometry(x.shape, w.shape, stride, y.shape, True)
    cdef Py_ssize_t band = g.n * transposed_step(g.width, g.channels), k
    cdef int bands, m
    assert db.shape[0] == g.maps
    for k in range(4):
        assert dw.shape[k] == w.shape[k] and dy.shape[k] == y.shape[k]
        assert dx.shape[0] == 0 or dx.shape[k] == x.shape[k]
    if not (g.n and g.maps and g.channels):
        dw[...] = 0
        db[...] = 0
        return
    bands = min(bands_for(&g), g.kh, (scratch.shape[0] - 15) // band)
    assert bands >= 1
    with nogil:
        for m in prange(g.maps, schedule="static", use_threads_if=bands_for(&g) > 1):
            db[m] = _derive_map(&g, m, &y[0, 0, 0, 0], activation, &dy[0, 0, 0, 0])
        memset(&dw[0, 0, 0, 0], 0, dw.shape[0] * dw.shape[1] * dw.shape[2] * dw.shape[3] * sizeof(real))
        for k in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            _backward_to_weights(&g, &x[0, 0, 0, 0], &dy[0, 0, 0, 0], &dw[0, 0, 0, 0],
                                 aligned(&scratch[0]) + k * band, g.kh * k // bands, g.kh * (k + 1) // bands)
        if dx.shape[0]:
            backward_to_inputs(&g, &w[0, 0, 0, 0], &dy[0, 0, 0, 0], &dx[0, 0, 0, 0])


cdef real _derive_map(const Geometry *g, Py_ssize_t m, const real *y, int activation, real *dy) noexcept nogil:
    """One map's rows of dy, at all positions; returns the gradient by its bias."""
    cdef Py_ssize_t position
    cdef double total = 0
    for position in range(g.oh * g.ow):
        total += derive(y + (position * g.maps + m) * g.n, dy + (position * g.maps + m) * g.n, g.n, activation)
    return <real>total


cdef void _backward_to_weights(const Geometry *g, const real *x, const real *dz, real *dw, real *scratch,
                               Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Rows first..last-1 of the filters. From each row of x, dz [maps, ow, N] times the windows [ow, N, kw C]."""
    cdef Py_ssize_t i, u, row, step = transposed_step(g.width, g.channels)
    cdef Product p
    p.rows, p.columns, p.outer, p.inner = g.maps, g.kw * g.channels, g.ow, g.n
    p.a_i, p.a_o, p.a_k = g.n, g.maps * g.n, 1
    p.b_o, p.b_k, p.c_i, p.add = g.stride * g.channels, step, g.kh * p.columns, True
    p.a_ahead, p.b_ahead, p.c_ahead, p.stream = 0, 0, 0, False
    for row in range(first, (g.oh - 1) * g.stride + last):
        transpose_row(g, x, row, scratch)
        for u in range(first, last):
            i = row - u
            if i >= 0 and i % g.stride == 0 and i // g.stride < g.oh:
                product(&p, dz + i // g.stride * g.ow * g.maps * g.n, scratch, dw + u * p.columns)
