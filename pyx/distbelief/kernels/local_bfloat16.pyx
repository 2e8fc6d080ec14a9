# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Locally connected layer with weights in bfloat16 (uint16 bits); all else is float32.

Shapes as in `local`. Weights are widened a panel at a time, just before they are multiplied, and nowhere else: of their
size there is no copy. Results are those of `local` with the widened weights, bit by bit. The gradient by the weights
needs none of them: local_backward_to_weights.
"""

from cython.parallel cimport prange
from libc.string cimport memset

from distbelief.kernels.activation cimport activate
from distbelief.kernels.bfloat16 cimport widen_rows
from distbelief.kernels.filters cimport Geometry, bands_for, geometry, together_for
from distbelief.kernels.product cimport Product, product
from distbelief.kernels.threads cimport threads

ctypedef unsigned short bits

cdef enum:
    PANEL = 1 << 15  # numbers that are widened at a time: they stay in the second-level cache
    TILE = 6         # maps that are multiplied together; with fewer, loads outnumber multiplications


cdef inline Py_ssize_t _maps_at_once(Py_ssize_t maps, Py_ssize_t size) noexcept nogil:
    """Of one position, with filters of `size` numbers: whole tiles, in panels as equal as can be."""
    cdef Py_ssize_t most = max(PANEL // size // TILE, 1) * TILE, panels = (maps + most - 1) // most
    return (maps + panels - 1) // panels


cdef inline Py_ssize_t _panel(Py_ssize_t maps, Py_ssize_t kh, Py_ssize_t kw, Py_ssize_t channels) noexcept nogil:
    """Elements of scratch for each thread: whole lines of the cache."""
    cdef Py_ssize_t forward, size = kh * kw * channels
    if not (maps and size):
        return 16  # there is nothing to widen
    forward = _maps_at_once(maps, size) * size
    return (max(forward, together_for(maps) * maps * kw * channels) + 15) // 16 * 16


def local_bfloat16_scratch(Py_ssize_t maps, Py_ssize_t kh, Py_ssize_t kw, Py_ssize_t channels):
    """Elements of float32 that the kernels need, for as many threads as are in use."""
    return threads() * _panel(maps, kh, kw, channels)


def local_bfloat16_forward(const bits[:, :, :, :, :, ::1] w, const float[:, :, ::1] b, const float[:, :, :, ::1] x,
                           Py_ssize_t stride, int activation, float[:, :, :, ::1] y, float[::1] scratch):
    """y = activation(w x + b), at each position with its own w and b. Threads share the rows of y.

    `scratch` has at least local_bfloat16_scratch(maps, kh, kw, C) elements; with fewer, fewer threads are used.
    """
    cdef Geometry g = geometry(x.shape, w.shape + 2, stride, y.shape, False)
    cdef Py_ssize_t panel = _panel(g.maps, g.kh, g.kw, g.channels)
    cdef int bands, band
    assert w.shape[0] == g.oh and w.shape[1] == g.ow
    assert b.shape[0] == g.oh and b.shape[1] == g.ow and b.shape[2] == g.maps
    if not (g.n and g.maps and g.channels):
        return
    bands = min(bands_for(&g), scratch.shape[0] // panel)
    assert bands >= 1
    with nogil:
        for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            _forward_rows(&g, &w[0, 0, 0, 0, 0, 0], &b[0, 0, 0], &x[0, 0, 0, 0], activation, &y[0, 0, 0, 0],
                          &scratch[0] + band * panel, g.oh * band // bands, g.oh * (band + 1) // bands)


cdef void _forward_rows(const Geometry *g, const bits *w, const float *b, const float *x, int activation, float *y,
                        float *panel, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Rows first..last-1 of y."""
    cdef Py_ssize_t i, j, m, block, position, size = g.kh * g.kw * g.channels, pixel = g.channels * g.n
    cdef Py_ssize_t at_once = _maps_at_once(g.maps, size)
    cdef Product p
    p.columns, p.outer, p.inner = g.n, g.kh, g.kw * g.channels
    p.a_i, p.a_o, p.a_k = size, p.inner, 1
    p.b_o, p.b_k, p.c_i, p.add = g.width * pixel, g.n, g.n, False
    p.a_ahead, p.b_ahead, p.c_ahead, p.stream = 0, 0, 0, False
    for i in range(first, last):
        for j in range(g.ow):
            position = i * g.ow + j
            for block in range((g.maps + at_once - 1) // at_once):
                m = block * at_once
                p.rows = min(at_once, g.maps - m)
                widen_rows(w + (position * g.maps + m) * size, 1, p.rows * size, 0, panel)
                product(&p, panel, x + (i * g.width + j) * g.stride * pixel, y + (position * g.maps + m) * g.n)
            for m in range(position * g.maps, (position + 1) * g.maps):
                activate(y + m * g.n, b[m], g.n, activation)


def local_bfloat16_backward_to_inputs(const bits[:, :, :, :, :, ::1] w, const float[:, :, :, ::1] dz,
                                      Py_ssize_t stride, float[:, :, :, ::1] dx, float[::1] scratch):
    """dx, overwritten: the gradient by x from `dz`, that by w x + b. Threads share its rows; scratch as in forward."""
    cdef Geometry g = geometry(dx.shape, w.shape + 2, stride, dz.shape, False)
    cdef Py_ssize_t panel = _panel(g.maps, g.kh, g.kw, g.channels)
    cdef int bands, band
    assert w.shape[0] == g.oh and w.shape[1] == g.ow
    if not (g.n and g.maps and g.channels):
        return
    bands = min(bands_for(&g), scratch.shape[0] // panel)
    assert bands >= 1
    with nogil:
        for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            _backward_to_rows(&g, &w[0, 0, 0, 0, 0, 0], &dz[0, 0, 0, 0], &dx[0, 0, 0, 0], &scratch[0] + band * panel,
                              g.height * band // bands, g.height * (band + 1) // bands)


cdef void _backward_to_rows(const Geometry *g, const bits *w, const float *dz, float *dx, float *panel,
                            Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Rows first..last-1 of dx, as in `filters`; of the filters that meet in a row, the rows that do."""
    cdef Py_ssize_t block, i, j, h, o, top, stop, pixel = g.channels * g.n, together = together_for(g.maps)
    cdef Py_ssize_t row = g.width * pixel, size = g.kw * g.channels
    cdef Product p
    p.rows, p.columns, p.inner, p.add = size, g.n, g.maps, True
    p.a_i, p.a_o, p.a_k = 1, g.maps * size, size
    p.b_o, p.b_k, p.c_i = g.ow * g.maps * g.n, g.n, g.n
    p.a_ahead, p.b_ahead, p.c_ahead, p.stream = 0, 0, 0, False
    memset(dx + first * row, 0, (last - first) * row * sizeof(float))
    for block in range((g.oh + together - 1) // together):
        i, stop = block * together, min((block + 1) * together, g.oh)
        for j in range(g.ow):
            for h in range(max(first, i * g.stride), min(last, (stop - 1) * g.stride + g.kh)):
                top = max(i, (h - g.kh + g.stride) // g.stride)
                p.outer = min(stop, h // g.stride + 1) - top
                for o in range(p.outer):
                    widen_rows(w + ((top + o) * g.ow + j) * g.w_step + (h - (top + o) * g.stride) * size, g.maps, size,
                               g.kh * size, panel + o * p.a_o)
                if p.outer > 0:
                    product(&p, panel, dz + (top * g.ow + j) * g.maps * g.n, dx + h * row + j * g.stride * pixel)
