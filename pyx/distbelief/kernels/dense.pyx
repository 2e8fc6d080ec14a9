# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Dense layer: products by BLAS or in blocks of ours, bias and activation in one pass over the outputs.

Arrays are C-contiguous and feature-first: x [inputs, n], y [outputs, n]; w [outputs, inputs], b [outputs]. Threads
share the rows of what is computed, and each has its own products.
"""

from cython.parallel cimport prange

from distbelief.kernels.activation cimport LINEAR, RELU, SIGMOID, TANH, activate, derive
from distbelief.kernels.blas cimport gemm
from distbelief.kernels.blocked cimport WIDEST, column_product, outer_accrue, outer_is_ours, outer_product, row_product
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport band_start, shares_of

# The numbers of the activations by their names.
ACTIVATIONS = {"linear": LINEAR, "sigmoid": SIGMOID, "tanh": TANH, "relu": RELU}
# Whether this build has blocks for products of any size, by AVX-512 (blas.use_sgemm).
BLOCKS_OF_ANY_SIZE = bool(WIDEST)


cdef void _forward(const real *w, const real *b, const real *x, int activation, real *y, Py_ssize_t outputs,
                   Py_ssize_t inputs, Py_ssize_t n, Py_ssize_t whole) noexcept nogil:
    cdef Py_ssize_t o
    if outputs == 0:
        return
    row_product[real](w, x, y, outputs, n, inputs, whole)
    for o in range(outputs):
        activate(y + o * n, b[o], n, activation)


cdef void _backward_to_weights(const real *x, const real *y, int activation, real *dy, real *dw, real *db,
                               Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n,
                               Py_ssize_t whole) noexcept nogil:
    cdef Py_ssize_t o
    if outputs == 0:
        return
    for o in range(outputs):
        db[o] = derive(y + o * n, dy + o * n, n, activation)
    outer_product[real](dy, x, dw, outputs, inputs, n, whole)


cdef void _backward_to_inputs(const real *w, const real *dy, real *dx, Py_ssize_t outputs, Py_ssize_t inputs,
                              Py_ssize_t first, Py_ssize_t last, Py_ssize_t n) noexcept nogil:
    """Rows first..last-1 of dx."""
    if last > first:
        column_product[real](w + first, inputs, dy, dx + first * n, last - first, n, outputs, outputs * inputs)


def dense_forward(const real[:, ::1] w_oi, const real[::1] b_o, const real[:, ::1] x_in, int activation,
                  real[:, ::1] y_on):
    """y = activation(w x + b)."""
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first
    cdef int bands = shares_of(2.0 * outputs * inputs * n), band
    assert b_o.shape[0] == outputs and x_in.shape[0] == inputs
    assert y_on.shape[0] == outputs and y_on.shape[1] == n
    if n == 0 or outputs == 0 or inputs == 0:
        return
    with nogil:
        for band in prange(bands, schedule="dynamic", use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            _forward[real](&w_oi[0, 0] + first * inputs, &b_o[0] + first, &x_in[0, 0], activation,
                           &y_on[0, 0] + first * n, band_start(outputs, bands, band + 1) - first, inputs, n,
                           outputs * inputs)


def dense_backward(const real[:, ::1] w_oi, const real[:, ::1] x_in, const real[:, ::1] y_on, int activation,
                   real[:, ::1] dy_on, real[:, ::1] dw_oi, real[::1] db_o, real[:, ::1] dx_in):
    """Gradients of a loss by w, b and x from that by y; `dy_on` is overwritten with the gradient by w x + b.

    dw, db and dx are overwritten, not added to. A `dx_in` of no rows is left alone: the first layer needs none.
    """
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first
    cdef int bands = shares_of(2.0 * outputs * inputs * n), band
    assert x_in.shape[0] == inputs and y_on.shape[0] == outputs and y_on.shape[1] == n
    assert dy_on.shape[0] == outputs and dy_on.shape[1] == n
    assert dw_oi.shape[0] == outputs and dw_oi.shape[1] == inputs and db_o.shape[0] == outputs
    assert dx_in.shape[0] == 0 or (dx_in.shape[0] == inputs and dx_in.shape[1] == n)
    if n == 0 or outputs == 0 or inputs == 0:
        dw_oi[:, :] = 0
        db_o[:] = 0
        return
    with nogil:
        for band in prange(bands, schedule="dynamic", use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            _backward_to_weights[real](&x_in[0, 0], &y_on[0, 0] + first * n, activation, &dy_on[0, 0] + first * n,
                                       &dw_oi[0, 0] + first * inputs, &db_o[0] + first,
                                       band_start(outputs, bands, band + 1) - first, inputs, n, outputs * inputs)
        if dx_in.shape[0]:
            for band in prange(bands, schedule="dynamic", use_threads_if=bands > 1):
                _backward_to_inputs[real](&w_oi[0, 0], &dy_on[0, 0], &dx_in[0, 0], outputs, inputs,
                                          band_start(inputs, bands, band), band_start(inputs, bands, band + 1), n)


def dense_accrues(Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n):
    """Whether `dense_accrue` may be called, and is worth it: where products of this size are computed in blocks of
    ours, so that what they end in is in our hands."""
    return outputs > 0 and inputs > 0 and n > 0 and outer_is_ours(outputs * inputs, n)


cdef void _accrue_biases(const real *y, int activation, real *dy, real *b, real *accrued, real weight, real rate,
                         bint fresh, Py_ssize_t outputs, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t o
    cdef real g
    for o in range(outputs):
        g = derive(y + o * n, dy + o * n, n, activation)
        accrued[o] = (0 if fresh else accrued[o]) + weight * g
        if rate != 0:
            b[o] -= rate * g


def dense_accrue(real[:, ::1] w_oi, real[::1] b_o, const real[:, ::1] x_in, const real[:, ::1] y_on, int activation,
                 real[:, ::1] dy_on, real[:, ::1] accrued_oi, real[::1] accrued_o, real[:, ::1] dx_in, double weight,
                 double rate, bint fresh):
    """`dense_backward`, whose gradients g by w and b are taken in at once, and written nowhere.

    accrued += weight g, or if `fresh` accrued = weight g; then w, b -= rate g, with a rate of 0 left alone. dx is by w
    as it was before. Shapes as there, accrued [outputs, inputs] and [outputs]; only where `dense_accrues`.
    """
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first, rows
    cdef int bands = shares_of(2.0 * outputs * inputs * n), band
    assert x_in.shape[0] == inputs and y_on.shape[0] == outputs and y_on.shape[1] == n and b_o.shape[0] == outputs
    assert dy_on.shape[0] == outputs and dy_on.shape[1] == n
    assert accrued_oi.shape[0] == outputs and accrued_oi.shape[1] == inputs and accrued_o.shape[0] == outputs
    assert dx_in.shape[0] == 0 or (dx_in.shape[0] == inputs and dx_in.shape[1] == n)
    assert outputs and inputs and n
    with nogil:
        for band in prange(bands, schedule="dynamic", use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            _accrue_biases[real](&y_on[0, 0] + first * n, activation, &dy_on[0, 0] + first * n, &b_o[0] + first,
                                 &accrued_o[0] + first, <real>weight, <real>rate, fresh,
                                 band_start(outputs, bands, band + 1) - first, n)
        if dx_in.shape[0]:
            for band in prange(bands, schedule="dynamic", use_threads_if=bands > 1):
                _backward_to_inputs[real](&w_oi[0, 0], &dy_on[0, 0], &dx_in[0, 0], outputs, inputs,
                                          band_start(inputs, bands, band), band_start(inputs, bands, band + 1), n)
        for band in prange(bands, schedule="dynamic", use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            rows = band_start(outputs, bands, band + 1) - first
            outer_accrue[real](&dy_on[0, 0] + first * n, &x_in[0, 0], &accrued_oi[0, 0] + first * inputs,
                               &w_oi[0, 0] + first * inputs if rate != 0 else NULL, weight, rate, fresh, rows, inputs,
                               n)


def product(bint transpose_a, bint transpose_b, const real[:, ::1] a, const real[:, ::1] b, real[:, ::1] out):
    """out = op(a) op(b), op: the transpose or nothing, as a dense layer has it computed. Threads share its rows."""
    cdef Py_ssize_t rows = out.shape[0], columns = out.shape[1], inner = a.shape[not transpose_a], first
    cdef int bands = shares_of(2.0 * rows * columns * inner), band
    assert a.shape[transpose_a] == rows and b.shape[transpose_b] == inner and b.shape[not transpose_b] == columns
    assert rows and columns and inner
    with nogil:
        for band in prange(bands, schedule="dynamic", use_threads_if=bands > 1):
            first = band_start(rows, bands, band)
            _product[real](transpose_a, transpose_b, &a[0, 0] + first * (1 if transpose_a else inner), a.shape[1],
                           &b[0, 0], b.shape[1], &out[0, 0] + first * columns,
                           band_start(rows, bands, band + 1) - first, columns, inner, rows)


cdef void _product(bint transpose_a, bint transpose_b, const real *a, Py_ssize_t lda, const real *b, Py_ssize_t ldb,
                   real *out, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t inner,
                   Py_ssize_t all_rows) noexcept nogil:
    if rows == 0:
        return
    if transpose_a and not transpose_b:
        column_product[real](a, lda, b, out, rows, columns, inner, all_rows * inner)
    elif transpose_b and not transpose_a:
        outer_product[real](a, b, out, rows, columns, inner, all_rows * columns)
    elif not transpose_a:
        row_product[real](a, b, out, rows, columns, inner, all_rows * inner)
    else:
        gemm[real](b't', b't', <int>rows, <int>columns, <int>inner,
                   <real *>a, <int>lda, <real *>b, <int>ldb, 0, out, <int>columns)
