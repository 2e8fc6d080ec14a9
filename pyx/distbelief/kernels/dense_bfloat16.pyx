# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Dense layer in bfloat16 (uint16 bits): products of bfloat16 numbers, summed in float32; all else in float32.

Shapes as in `dense`. Weights and the numbers that are multiplied are bfloat16. An output and the gradient by it are
bfloat16 or float32, whichever the layer above wants; likewise the gradient by the input. Gradients of the parameters
are float32. Rounded are, to nearest even: y; the gradient by w x + b, before the products; dx. Nothing else.
"""

from cython.parallel cimport prange

from distbelief.kernels.activation cimport activate, derive
from distbelief.kernels.bfloat16 cimport narrow_bits, widen_bits
from distbelief.kernels.product16 cimport product16, product16_scratch
from distbelief.kernels.threads cimport band_start, bands_of, threads

ctypedef unsigned short bits

ctypedef fused outer:
    float
    bits

ctypedef fused inner:
    float
    bits

cdef enum:
    CHUNK = 64  # numbers of a row that are widened at a time


cdef Py_ssize_t _band(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n) noexcept nogil:
    """Elements of scratch for each thread."""
    return product16_scratch(max(inputs, n), max(inputs, outputs) * n)


def dense_bfloat16_scratch(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n):
    """Elements of float32 that the kernels need, for as many threads as are in use."""
    return max(outputs, inputs) * n + threads() * _band(outputs, inputs, n)


cdef int _bands(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n, Py_ssize_t scratch) noexcept nogil:
    """As many as there are threads and scratch for."""
    cdef int bands = bands_of(2.0 * outputs * inputs * n)
    cdef Py_ssize_t band = _band(outputs, inputs, n)
    while bands > 1 and max(outputs, inputs) * n + bands * band > scratch:
        bands -= 1
    return bands


cdef void _write(const float *values, Py_ssize_t size, outer *out) noexcept nogil:
    """out = values, rounded if need be; they may be the same array."""
    cdef Py_ssize_t i
    if outer is bits:
        for i in range(size):
            out[i] = narrow_bits(values[i])
    elif values != out:
        for i in range(size):
            out[i] = values[i]


cdef float _derive_row(const outer *y, const outer *dy, Py_ssize_t n, int activation, bits *dz) noexcept nogil:
    """dz = dy activation'(z) over one row, rounded; returns the sum of the row before it is rounded."""
    cdef float y_chunk[CHUNK]
    cdef float dy_chunk[CHUNK]
    cdef Py_ssize_t chunk, start, size, j
    cdef double total = 0
    for chunk in range((n + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        size = min(<Py_ssize_t>CHUNK, n - start)
        for j in range(size):
            if outer is bits:
                y_chunk[j] = widen_bits(y[start + j])
                dy_chunk[j] = widen_bits(dy[start + j])
            else:
                y_chunk[j] = y[start + j]
                dy_chunk[j] = dy[start + j]
        total += derive[float](y_chunk, dy_chunk, size, activation)
        for j in range(size):
            dz[start + j] = narrow_bits(dy_chunk[j])
    return <float>total


cdef void _forward(const bits *w, const float *b, const bits *x, int activation, outer *y, Py_ssize_t outputs,
                   Py_ssize_t inputs, Py_ssize_t n, float *z, float *scratch) noexcept nogil:
    cdef Py_ssize_t o
    product16(False, False, outputs, n, inputs, w, inputs, x, n, z, scratch)
    for o in range(outputs):
        activate(z + o * n, b[o], n, activation)
        _write[outer](z + o * n, n, y + o * n)


cdef void _backward_to_weights(const bits *x, const outer *y, const outer *dy, int activation, bits *dz, float *dw,
                               float *db, Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n,
                               float *scratch) noexcept nogil:
    cdef Py_ssize_t o
    for o in range(outputs):
        db[o] = _derive_row[outer](y + o * n, dy + o * n, n, activation, dz + o * n)
    product16(False, True, outputs, inputs, n, dz, n, x, n, dw, scratch)


def dense_bfloat16_forward(const bits[:, ::1] w_oi, const float[::1] b_o, const bits[:, ::1] x_in, int activation,
                           outer[:, ::1] y_on, float[::1] scratch):
    """y = activation(w x + b). `scratch`: at least dense_bfloat16_scratch(outputs, inputs, n) elements."""
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first, last
    cdef Py_ssize_t one = _band(outputs, inputs, n)
    cdef int bands = _bands(outputs, inputs, n, scratch.shape[0]), band
    cdef float *z
    assert b_o.shape[0] == outputs and x_in.shape[0] == inputs
    assert y_on.shape[0] == outputs and y_on.shape[1] == n
    assert scratch.shape[0] >= max(outputs, inputs) * n + one
    if n == 0 or outputs == 0 or inputs == 0:
        return
    z = &scratch[0]
    with nogil:
        for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            last = band_start(outputs, bands, band + 1)
            _forward[outer](&w_oi[0, 0] + first * inputs, &b_o[0] + first, &x_in[0, 0], activation,
                            &y_on[0, 0] + first * n, last - first, inputs, n, z + first * n,
                            z + max(outputs, inputs) * n + band * one)


def dense_bfloat16_backward(const bits[:, ::1] w_oi, const bits[:, ::1] x_in, const outer[:, ::1] y_on, int activation,
                            const outer[:, ::1] dy_on, bits[:, ::1] dz_on, float[:, ::1] dw_oi, float[::1] db_o,
                            inner[:, ::1] dx_in, float[::1] scratch):
    """Gradients of a loss by w, b and x from that by y; `dz_on` is overwritten with the one by w x + b.

    dw, db and dx are overwritten, not added to. A `dx_in` of no rows is left alone: the first layer needs none. `dz_on`
    may be `dy_on`. `scratch`: at least dense_bfloat16_scratch(outputs, inputs, n) elements.
    """
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first, last
    cdef Py_ssize_t one = _band(outputs, inputs, n)
    cdef int bands = _bands(outputs, inputs, n, scratch.shape[0]), band
    cdef float *dx
    cdef float *rest
    assert x_in.shape[0] == inputs and y_on.shape[0] == outputs and y_on.shape[1] == n
    assert dy_on.shape[0] == outputs and dy_on.shape[1] == n and dz_on.shape[0] == outputs and dz_on.shape[1] == n
    assert dw_oi.shape[0] == outputs and dw_oi.shape[1] == inputs and db_o.shape[0] == outputs
    assert dx_in.shape[0] == 0 or (dx_in.shape[0] == inputs and dx_in.shape[1] == n)
    assert scratch.shape[0] >= max(outputs, inputs) * n + one
    if n == 0 or outputs == 0 or inputs == 0:
        dw_oi[:, :] = 0
        db_o[:] = 0
        return
    dx, rest = &scratch[0], &scratch[0] + max(outputs, inputs) * n
    with nogil:
        for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            last = band_start(outputs, bands, band + 1)
            _backward_to_weights[outer](&x_in[0, 0], &y_on[0, 0] + first * n, &dy_on[0, 0] + first * n, activation,
                                        &dz_on[0, 0] + first * n, &dw_oi[0, 0] + first * inputs, &db_o[0] + first,
                                        last - first, inputs, n, rest + band * one)
        if dx_in.shape[0]:
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                first = band_start(inputs, bands, band)
                last = band_start(inputs, bands, band + 1)
                product16(True, False, last - first, n, outputs, &w_oi[0, 0] + first, inputs, &dz_on[0, 0], n,
                          dx + first * n, rest + band * one)
                _write[inner](dx + first * n, (last - first) * n, &dx_in[0, 0] + first * n)
