# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Dense layer in bfloat16 (uint16 bits): products of bfloat16 numbers, summed in float32; all else in float32.

Shapes as in `dense`. Weights and the numbers that are multiplied are bfloat16. An output and the gradient by it are
bfloat16 or float32, whichever the layer above wants; likewise the gradient by the input. Gradients of the parameters
are float32. Rounded are, to nearest even: y; the gradient by w x + b, before the products; dx. Nothing else.
"""

from cython.parallel cimport prange

from libc.string cimport memcpy

from distbelief.kernels.activation cimport LINEAR, activate, derive
from distbelief.kernels.bfloat16 cimport narrow_bits, narrow_normal, widen_bits
from distbelief.kernels.blas cimport way16
from distbelief.kernels.product16 cimport (
    FORWARD, PRODUCT_LONGEST, SQUARE_ADD, SQUARE_STORE, TO_INPUTS, TO_WEIGHTS, SquarePlace, columns_at_once, line,
    outer_product16, pack, packed_size, product16, product_scratch,
)
from distbelief.kernels.threads cimport bands_of, threads

ctypedef unsigned short bits

ctypedef fused outer:
    float
    bits

ctypedef fused inner:
    float
    bits

cdef enum:
    CHUNK = 64  # numbers of a row that are computed with at a time
    SIDE = 32  # of the squares that products come in
    ROWS = 512  # of outputs whose errors stay in the cache until they are multiplied


cdef Py_ssize_t _start(Py_ssize_t size, int bands, int band) noexcept nogil:
    """As threads.band_start, but a multiple of 32: rows that are packed together are of one band."""
    return min((size * band // bands + 31) // 32 * 32, size)


cdef Py_ssize_t _shared(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n) noexcept nogil:
    """Elements of scratch for all: what one product has packed, from a line of the cache on."""
    cdef Py_ssize_t forward = packed_size(inputs, columns_at_once(FORWARD, n))
    cdef Py_ssize_t backward = packed_size(outputs, columns_at_once(TO_INPUTS, n))
    return 16 + max(forward, backward, packed_size(inputs, n))


def dense_bfloat16_scratch(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n):
    """Elements of float32 that the kernels need, for as many threads as are in use and the products that are."""
    return _shared(outputs, inputs, n) + threads() * product_scratch(n)


cdef int _bands(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n, Py_ssize_t scratch) noexcept nogil:
    """As many as there are threads and scratch for."""
    cdef int bands = bands_of(2.0 * outputs * inputs * n)
    cdef Py_ssize_t one = product_scratch(n)
    if one:
        bands = min(bands, <int>((scratch - _shared(outputs, inputs, n)) // one))
    return max(1, bands)


cdef struct Place:
    # Where numbers of a product [rows, n] go, and what becomes of them before.
    void *out
    bint narrow
    Py_ssize_t n
    const float *bias  # of each row; or NULL: nothing is done to them
    int activation


cdef inline void _put_row(const Place *place, float *z, Py_ssize_t row, Py_ssize_t column,
                          Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at = row * place.n + column
    if place.bias != NULL:
        activate(z, place.bias[row], size, place.activation)
    if place.narrow:
        narrow_normal(z, <bits *>place.out + at, size)
    else:
        memcpy(<float *>place.out + at, z, size * sizeof(float))


cdef void _put(void *to, float *sums, Py_ssize_t ld, Py_ssize_t row, Py_ssize_t column, Py_ssize_t rows,
               Py_ssize_t columns) noexcept nogil:
    cdef const Place *place = <const Place *>to
    cdef Py_ssize_t r
    for r in range(rows):
        if columns == SIDE:  # a constant: loops without ends
            _put_row(place, sums + r * ld, row + r, column, SIDE)
        else:
            _put_row(place, sums + r * ld, row + r, column, columns)


cdef void _widen(const outer *values, Py_ssize_t size, float *out) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(size):
        if outer is bits:
            out[j] = widen_bits(values[j])
        else:
            out[j] = values[j]


cdef float _derive_row(const outer *y, const outer *dy, Py_ssize_t n, int activation, bits *dz) noexcept nogil:
    """dz = dy activation'(z) over one row, rounded; returns the sum of the row before it is rounded.

    `dz` may begin where `dy` does: a chunk is read, by memcpy whatever the types, before its place is written.
    """
    cdef float y_chunk[CHUNK]
    cdef float dy_chunk[CHUNK]
    cdef outer read[CHUNK]
    cdef Py_ssize_t start = 0, size, j
    cdef double total = 0
    while start < n:
        size = min(<Py_ssize_t>CHUNK, n - start)
        memcpy(read, dy + start, size * sizeof(outer))
        _widen[outer](read, size, dy_chunk)
        if activation != LINEAR:
            _widen[outer](y + start, size, y_chunk)
        total += derive[float](y_chunk, dy_chunk, size, activation)
        narrow_normal(dy_chunk, dz + start, size)
        start += size
    return <float>total


cdef struct Taken:
    # What becomes of the gradients by w and b. b is stepped in float32 or bfloat16, unless both are NULL.
    SquarePlace w
    float *db
    float *b
    bits *b16


cdef inline void _take_bias(const Taken *into, Py_ssize_t o, float g) noexcept nogil:
    into.db[o] = (into.db[o] if into.w.how == SQUARE_ADD else 0) + into.w.weight * g
    if into.b != NULL:
        into.b[o] -= into.w.rate * g
    elif into.b16 != NULL:
        into.b16[o] = narrow_bits(widen_bits(into.b16[o]) - into.w.rate * g)


cdef void _to_weights(const bits *x, const float *packed_x, const outer *y, outer *dy, int activation,
                      const Taken *into, bint derived, bint multiplied, Py_ssize_t first, Py_ssize_t last,
                      Py_ssize_t inputs, Py_ssize_t n, float *scratch) noexcept nogil:
    """Rows first..last-1 of the gradients. Each row of dz lies where that of dy began: it is `derived` first, and db
    with it; then it is `multiplied`."""
    cdef Py_ssize_t o, row = first, end, step = n * sizeof(outer) // sizeof(bits)
    cdef bits *dz = <bits *>dy
    cdef SquarePlace place
    while row < last:
        end = min(row + ROWS, last)
        if derived:
            for o in range(row, end):
                _take_bias(into, o, _derive_row[outer](y + o * n, dy + o * n, n, activation, dz + o * step))
        if multiplied:
            place = into.w
            place.c += row * inputs
            if place.w != NULL:
                place.w += row * inputs
            if place.w16 != NULL:
                place.w16 += row * inputs
            outer_product16(end - row, inputs, n, dz + row * step, step, x, packed_x, scratch, &place)
        row = end


def dense_bfloat16_forward(const bits[:, ::1] w_oi, const float[::1] b_o, const bits[:, ::1] x_in, int activation,
                           outer[:, ::1] y_on, float[::1] scratch):
    """y = activation(w x + b). `scratch`: at least dense_bfloat16_scratch(outputs, inputs, n) elements."""
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first
    cdef Py_ssize_t start, size, most
    cdef Py_ssize_t shared = _shared(outputs, inputs, n), one = product_scratch(n)
    cdef int bands = _bands(outputs, inputs, n, scratch.shape[0]), band
    cdef float *packed
    assert b_o.shape[0] == outputs and x_in.shape[0] == inputs
    assert y_on.shape[0] == outputs and y_on.shape[1] == n
    assert scratch.shape[0] >= shared + one
    if n == 0 or outputs == 0 or inputs == 0:
        return
    packed = line(&scratch[0])
    start, most = 0, columns_at_once(FORWARD, n)
    with nogil:
        while start < n:
            size = min(n - start, most)
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                pack(FORWARD, &x_in[0, start], inputs, size, n, _start(inputs, bands, band),
                     _start(inputs, bands, band + 1), packed)
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                first = _start(outputs, bands, band)
                _forward(&w_oi[0, 0] + first * inputs, &b_o[0] + first, &x_in[0, start], packed, activation,
                         &y_on[0, start] + first * n, outer is bits, _start(outputs, bands, band + 1) - first, inputs,
                         size, n, &scratch[0] + shared + band * one)
            start += most


cdef void _forward(const bits *w, const float *b, const bits *x, const float *packed, int activation, void *y,
                   bint narrow, Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t columns, Py_ssize_t n,
                   float *scratch) noexcept nogil:
    cdef Place place = Place(y, narrow, n, b, activation)
    product16(FORWARD, outputs, columns, inputs, w, inputs, x, n, packed, scratch, _put, &place)


cdef void _to_inputs(const bits *w, const bits *dz, Py_ssize_t step, const float *packed, void *dx, bint narrow,
                     Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t n,
                     float *scratch) noexcept nogil:
    """`rows` rows of `columns` columns of dx; w and dx begin with the first of them."""
    cdef Place place = Place(dx, narrow, n, NULL, LINEAR)
    product16(TO_INPUTS, rows, columns, outputs, w, inputs, dz, step, packed, scratch, _put, &place)


def dense_bfloat16_backward(const bits[:, ::1] w_oi, const bits[:, ::1] x_in, const outer[:, ::1] y_on, int activation,
                            outer[:, ::1] dy_on, float[:, ::1] dw_oi, float[::1] db_o, inner[:, ::1] dx_in,
                            float[::1] scratch):
    """Gradients of a loss by w, b and x from that by y; `dy_on` is overwritten with the one by w x + b, in bfloat16:
    each row of it where dy's began. A linear layer does not read y, which may be dy's own array.

    dw, db and dx are overwritten, not added to. A `dx_in` of no rows is left alone: the first layer needs none.
    `scratch`: at least dense_bfloat16_scratch(outputs, inputs, n) elements.
    """
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1]
    cdef Taken into
    assert dw_oi.shape[0] == outputs and dw_oi.shape[1] == inputs and db_o.shape[0] == outputs
    _expect[outer, inner](w_oi, x_in, y_on, dy_on, dx_in, scratch)
    if x_in.shape[1] == 0 or outputs == 0 or inputs == 0:
        dw_oi[:, :] = 0
        db_o[:] = 0
        return
    into = Taken(SquarePlace(&dw_oi[0, 0], NULL, NULL, inputs, inputs, 1, 0, SQUARE_STORE), &db_o[0], NULL, NULL)
    _backward[outer, inner](w_oi, x_in, y_on, activation, dy_on, &into, dx_in, scratch)


def dense_bfloat16_accrues(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n):
    """Whether `dense_bfloat16_accrue` may be called: where products are ours, and there are any, each summed in one go:
    a step that is rounded is taken once."""
    return way16 != 0 and outputs > 0 and inputs > 0 and 0 < n <= PRODUCT_LONGEST


def dense_bfloat16_accrue(const bits[:, ::1] w_oi, const bits[:, ::1] x_in, const outer[:, ::1] y_on, int activation,
                          outer[:, ::1] dy_on, float[:, ::1] accrued_oi, float[::1] accrued_o, inner[:, ::1] dx_in,
                          float[::1] scratch, double weight, double rate, bint fresh, float[:, ::1] master_oi=None,
                          float[::1] master_o=None, bits[:, ::1] held_oi=None, bits[::1] held_o=None):
    """`dense_bfloat16_backward`, whose gradients g by w and b are taken in at once, and written nowhere.

    accrued += weight g, or if `fresh` accrued = weight g; then, if they are given, parameters -= rate g: the masters of
    which w is the rounding, and b; or what is held in bfloat16, w itself and b, rounded again. dx is by w as it was.
    Shapes as there; only where `dense_bfloat16_accrues`.
    """
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1]
    cdef Taken into
    assert accrued_oi.shape[0] == outputs and accrued_oi.shape[1] == inputs and accrued_o.shape[0] == outputs
    assert (master_oi is None) == (master_o is None) and (held_oi is None) == (held_o is None)
    assert master_oi is None or (master_oi.shape[0] == outputs and master_oi.shape[1] == inputs and held_oi is None)
    assert master_o is None or master_o.shape[0] == outputs
    assert held_oi is None or (held_oi.shape[0] == outputs and held_oi.shape[1] == inputs)
    assert held_o is None or held_o.shape[0] == outputs
    assert dense_bfloat16_accrues(outputs, inputs, x_in.shape[1])
    _expect[outer, inner](w_oi, x_in, y_on, dy_on, dx_in, scratch)
    into = Taken(SquarePlace(&accrued_oi[0, 0], NULL, NULL, inputs, inputs, weight, rate,
                             SQUARE_STORE if fresh else SQUARE_ADD), &accrued_o[0], NULL, NULL)
    if master_oi is not None:
        into.w.w, into.b = &master_oi[0, 0], &master_o[0]
    if held_oi is not None:
        into.w.w16, into.b16 = &held_oi[0, 0], &held_o[0]
    _backward[outer, inner](w_oi, x_in, y_on, activation, dy_on, &into, dx_in, scratch)


cdef int _expect(const bits[:, ::1] w_oi, const bits[:, ::1] x_in, const outer[:, ::1] y_on, outer[:, ::1] dy_on,
                 inner[:, ::1] dx_in, float[::1] scratch) except -1:
    """The shapes of a backward pass."""
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1]
    assert x_in.shape[0] == inputs and y_on.shape[0] == outputs and y_on.shape[1] == n
    assert dy_on.shape[0] == outputs and dy_on.shape[1] == n
    assert dx_in.shape[0] == 0 or (dx_in.shape[0] == inputs and dx_in.shape[1] == n)
    assert scratch.shape[0] >= _shared(outputs, inputs, n) + product_scratch(n)
    return 0


cdef void _backward(const bits[:, ::1] w_oi, const bits[:, ::1] x_in, const outer[:, ::1] y_on, int activation,
                    outer[:, ::1] dy_on, const Taken *into, inner[:, ::1] dx_in, float[::1] scratch) noexcept:
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first
    cdef Py_ssize_t size, start = 0 if dx_in.shape[0] else n, most = columns_at_once(TO_INPUTS, n)
    cdef Py_ssize_t shared = _shared(outputs, inputs, n), one = product_scratch(n)
    cdef Py_ssize_t step = n * sizeof(outer) // sizeof(bits)  # from a row of dz to the next
    cdef int bands = _bands(outputs, inputs, n, scratch.shape[0]), band
    cdef float *packed = line(&scratch[0])
    cdef const bits *dz
    # The gradient by the inputs is by w as it is: where that takes its step, it waits.
    cdef bint steps = into.w.w16 != NULL
    with nogil:
        if not steps:
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                pack(TO_WEIGHTS, &x_in[0, 0], inputs, n, n, _start(inputs, bands, band),
                     _start(inputs, bands, band + 1), packed)
        for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
            _to_weights[outer](&x_in[0, 0], packed, &y_on[0, 0], &dy_on[0, 0], activation, into, True, not steps,
                               _start(outputs, bands, band), _start(outputs, bands, band + 1), inputs, n,
                               &scratch[0] + shared + band * one)
        while start < n:
            size = min(n - start, most)
            dz = <const bits *>&dy_on[0, 0] + start
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                pack(TO_INPUTS, dz, outputs, size, step, _start(outputs, bands, band),
                     _start(outputs, bands, band + 1), packed)
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                first = _start(inputs, bands, band)
                _to_inputs(&w_oi[0, 0] + first, dz, step, packed, &dx_in[0, start] + first * n, inner is bits, outputs,
                           inputs, _start(inputs, bands, band + 1) - first, size, n,
                           &scratch[0] + shared + band * one)
            start += most
        if steps:
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                pack(TO_WEIGHTS, &x_in[0, 0], inputs, n, n, _start(inputs, bands, band),
                     _start(inputs, bands, band + 1), packed)
            for band in prange(bands, schedule="static", num_threads=bands, use_threads_if=bands > 1):
                _to_weights[outer](&x_in[0, 0], packed, &y_on[0, 0], &dy_on[0, 0], activation, into, False, True,
                                   _start(outputs, bands, band), _start(outputs, bands, band + 1), inputs, n,
                                   &scratch[0] + shared + band * one)
