# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Dense layer in bfloat16 (uint16 bits): products of bfloat16 numbers, summed in float32; all else in float32.

Shapes as in `dense`. Weights and the numbers that are multiplied are bfloat16. An output and the gradient by it are
bfloat16 or float32, whichever the layer above wants; likewise the gradient by the input. Gradients of the parameters
are float32. Rounded are, to nearest even: y; the gradient by w x + b, before the products; dx. Nothing else.
"""

from cython.parallel cimport prange

from libc.string cimport memcpy

from distbelief.kernels.activation cimport activate, derive
from distbelief.kernels.bfloat16 cimport narrow_bits, widen_bits
from distbelief.kernels.product16 cimport (
    FORWARD, PANEL, TO_INPUTS, TO_WEIGHTS, line, operand, panel_of, prepare_operand, product16, widens,
)
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
    ROWS = 256  # of outputs that wait in float32 to be rounded


cdef Py_ssize_t _band(Py_ssize_t inputs, Py_ssize_t n) noexcept nogil:
    """Elements of scratch for each thread: a panel of outputs, and of what is widened."""
    return ROWS * n + (PANEL * (inputs + n) + 16 if widens() else 0)


cdef Py_ssize_t _shared(Py_ssize_t inputs, Py_ssize_t n) noexcept nogil:
    """Elements of scratch for all: first x, prepared, then dx in float32."""
    return (max(inputs * n, operand(inputs, n)) + 15) // 16 * 16


cdef Py_ssize_t _prepared(Py_ssize_t outputs, Py_ssize_t n) noexcept nogil:
    """And for dz, if not every thread widens a panel of it at a time."""
    return 0 if widens() else operand(outputs, n)


def dense_bfloat16_scratch(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n):
    """Elements of float32 that the kernels need, for as many threads as are in use."""
    return 16 + _shared(inputs, n) + _prepared(outputs, n) + threads() * _band(inputs, n)


cdef int _bands(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n, Py_ssize_t scratch) noexcept nogil:
    """As many as there are threads and scratch for."""
    cdef Py_ssize_t rest = scratch - 16 - _shared(inputs, n) - _prepared(outputs, n)
    return max(1, min(bands_of(2.0 * outputs * inputs * n), <int>(rest // _band(inputs, n))))


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
    """dz = dy activation'(z) over one row, rounded; returns the sum of the row before it is rounded.

    `dz` may begin where `dy` does: a chunk is read, by memcpy whatever the types, before its place is written.
    """
    cdef float y_chunk[CHUNK]
    cdef float dy_chunk[CHUNK]
    cdef outer read[CHUNK]
    cdef Py_ssize_t chunk, start, size, j
    cdef double total = 0
    for chunk in range((n + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        size = min(<Py_ssize_t>CHUNK, n - start)
        memcpy(read, dy + start, size * sizeof(outer))
        for j in range(size):
            if outer is bits:
                y_chunk[j] = widen_bits(y[start + j])
                dy_chunk[j] = widen_bits(read[j])
            else:
                y_chunk[j] = y[start + j]
                dy_chunk[j] = read[j]
        total += derive[float](y_chunk, dy_chunk, size, activation)
        for j in range(size):
            dz[start + j] = narrow_bits(dy_chunk[j])
    return <float>total


cdef void _forward(const bits *w, const float *b, const bits *x, const float *prepared, int activation, outer *y,
                   Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n, float *scratch) noexcept nogil:
    """Panel by panel, so that outputs that are to be rounded need little room in float32."""
    cdef Py_ssize_t o, panel, row, size, rows = panel_of(outputs)
    cdef float *z = scratch
    if outer is bits:
        rows = min(rows, <Py_ssize_t>ROWS)
    for panel in range((outputs + rows - 1) // rows if rows else 0):
        row = panel * rows
        size = min(rows, outputs - row)
        if outer is float:
            z = y + row * n
        product16(FORWARD, size, n, inputs, w + row * inputs, inputs, scratch + ROWS * n, x, n, prepared, False, z)
        for o in range(size):
            activate(z + o * n, b[row + o], n, activation)
            _write[outer](z + o * n, n, y + (row + o) * n)


cdef void _backward_to_weights(const bits *x, const float *prepared, const outer *y, outer *dy, int activation,
                               float *dw, float *db, Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n,
                               float *scratch) noexcept nogil:
    """Each row of dz lies where that of dy began."""
    cdef Py_ssize_t o, panel, row, size, rows = panel_of(outputs), step = n * sizeof(outer) // sizeof(bits)
    cdef bits *dz = <bits *>dy
    for o in range(outputs):
        db[o] = _derive_row[outer](y + o * n, dy + o * n, n, activation, dz + o * step)
    for panel in range((outputs + rows - 1) // rows if rows else 0):
        row = panel * rows
        size = min(rows, outputs - row)
        product16(TO_WEIGHTS, size, inputs, n, dz + row * step, step, scratch, x, n, prepared, False, dw + row * inputs)


cdef void _backward_to_inputs(const bits *w, const bits *dz, Py_ssize_t step, float *prepared, inner *dx, float *dx32,
                              Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t first, Py_ssize_t last, Py_ssize_t n,
                              float *scratch) noexcept nogil:
    """Rows first..last-1 of dx. A panel of outputs is a part of every sum."""
    cdef Py_ssize_t panel, row, size, rows = panel_of(outputs)
    if inner is float:
        dx32 = dx
    if widens():
        prepared = line(scratch + PANEL * inputs)
    for panel in range((outputs + rows - 1) // rows):
        row = panel * rows
        size = min(rows, outputs - row)
        if widens():
            prepare_operand(TO_INPUTS, dz + row * step, size, n, step, prepared)
        product16(TO_INPUTS, last - first, n, size, w + row * inputs + first, inputs, scratch, dz + row * step, step,
                  prepared, row > 0, dx32 + first * n)
    _write[inner](dx32 + first * n, (last - first) * n, dx + first * n)


def dense_bfloat16_forward(const bits[:, ::1] w_oi, const float[::1] b_o, const bits[:, ::1] x_in, int activation,
                           outer[:, ::1] y_on, float[::1] scratch):
    """y = activation(w x + b). `scratch`: at least dense_bfloat16_scratch(outputs, inputs, n) elements."""
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first
    cdef Py_ssize_t one = _band(inputs, n)
    cdef int bands = _bands(outputs, inputs, n, scratch.shape[0]), band
    cdef float *prepared
    cdef float *rest
    assert b_o.shape[0] == outputs and x_in.shape[0] == inputs
    assert y_on.shape[0] == outputs and y_on.shape[1] == n
    assert scratch.shape[0] >= 16 + _shared(inputs, n) + _prepared(outputs, n) + one
    if n == 0 or outputs == 0 or inputs == 0:
        return
    prepared = line(&scratch[0])
    rest = prepared + _shared(inputs, n)
    with nogil:
        prepare_operand(FORWARD, &x_in[0, 0], inputs, n, n, prepared)
        for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            _forward[outer](&w_oi[0, 0] + first * inputs, &b_o[0] + first, &x_in[0, 0], prepared,
                            activation, &y_on[0, 0] + first * n, band_start(outputs, bands, band + 1) - first, inputs,
                            n, rest + band * one)


def dense_bfloat16_backward(const bits[:, ::1] w_oi, const bits[:, ::1] x_in, const outer[:, ::1] y_on, int activation,
                            outer[:, ::1] dy_on, float[:, ::1] dw_oi, float[::1] db_o, inner[:, ::1] dx_in,
                            float[::1] scratch):
    """Gradients of a loss by w, b and x from that by y; `dy_on` is overwritten with the one by w x + b, in bfloat16:
    each row of it where dy's began.

    dw, db and dx are overwritten, not added to. A `dx_in` of no rows is left alone: the first layer needs none.
    `scratch`: at least dense_bfloat16_scratch(outputs, inputs, n) elements.
    """
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first
    cdef Py_ssize_t one = _band(inputs, n)
    cdef int bands = _bands(outputs, inputs, n, scratch.shape[0]), band
    cdef Py_ssize_t step = n * sizeof(outer) // sizeof(bits)
    cdef float *shared
    cdef float *prepared
    cdef float *rest
    assert x_in.shape[0] == inputs and y_on.shape[0] == outputs and y_on.shape[1] == n
    assert dy_on.shape[0] == outputs and dy_on.shape[1] == n
    assert dw_oi.shape[0] == outputs and dw_oi.shape[1] == inputs and db_o.shape[0] == outputs
    assert dx_in.shape[0] == 0 or (dx_in.shape[0] == inputs and dx_in.shape[1] == n)
    assert scratch.shape[0] >= 16 + _shared(inputs, n) + _prepared(outputs, n) + one
    if n == 0 or outputs == 0 or inputs == 0:
        dw_oi[:, :] = 0
        db_o[:] = 0
        return
    shared = line(&scratch[0])
    prepared = shared + _shared(inputs, n)
    rest = prepared + _prepared(outputs, n)
    with nogil:
        prepare_operand(TO_WEIGHTS, &x_in[0, 0], inputs, n, n, shared)
        for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            _backward_to_weights[outer](&x_in[0, 0], shared, &y_on[0, 0] + first * n, &dy_on[0, 0] + first * n,
                                        activation, &dw_oi[0, 0] + first * inputs, &db_o[0] + first,
                                        band_start(outputs, bands, band + 1) - first, inputs, n, rest + band * one)
        if dx_in.shape[0]:
            if not widens():
                prepare_operand(TO_INPUTS, <const bits *>&dy_on[0, 0], outputs, n, step, prepared)
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                _backward_to_inputs[inner](&w_oi[0, 0], <const bits *>&dy_on[0, 0], step, prepared, &dx_in[0, 0],
                                           shared, outputs, inputs, band_start(inputs, bands, band),
                                           band_start(inputs, bands, band + 1), n, rest + band * one)
