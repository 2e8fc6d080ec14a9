# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Dense layer: products by BLAS, bias and activation in one pass over the outputs.

Arrays are C-contiguous and feature-first: x [inputs, n], y [outputs, n]; w [outputs, inputs], b [outputs]. Threads
share the rows of what is computed, and each has its own products.
"""

from cython.parallel cimport prange

from distbelief.kernels.activation cimport LINEAR, RELU, SIGMOID, TANH, activate, derive
from distbelief.kernels.blas cimport gemm
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport band_start, bands_of

# The numbers of the activations by their names.
ACTIVATIONS = {"linear": LINEAR, "sigmoid": SIGMOID, "tanh": TANH, "relu": RELU}


cdef void _forward(const real *w, const real *b, const real *x, int activation, real *y, Py_ssize_t outputs,
                   Py_ssize_t inputs, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t o
    if outputs == 0:
        return
    gemm[real](b'n', b'n', <int>outputs, <int>n, <int>inputs, <real *>w, <int>inputs, <real *>x, <int>n, 0,
               y, <int>n)
    for o in range(outputs):
        activate(y + o * n, b[o], n, activation)


cdef void _backward_to_weights(const real *x, const real *y, int activation, real *dy, real *dw, real *db,
                               Py_ssize_t outputs, Py_ssize_t inputs, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t o
    if outputs == 0:
        return
    for o in range(outputs):
        db[o] = derive(y + o * n, dy + o * n, n, activation)
    gemm[real](b'n', b't', <int>outputs, <int>inputs, <int>n, dy, <int>n, <real *>x, <int>n, 0, dw, <int>inputs)


cdef void _backward_to_inputs(const real *w, const real *dy, real *dx, Py_ssize_t outputs, Py_ssize_t inputs,
                              Py_ssize_t first, Py_ssize_t last, Py_ssize_t n) noexcept nogil:
    """Rows first..last-1 of dx."""
    if last > first:
        gemm[real](b't', b'n', <int>(last - first), <int>n, <int>outputs, <real *>w + first, <int>inputs,
                   <real *>dy, <int>n, 0, dx + first * n, <int>n)


def dense_forward(const real[:, ::1] w_oi, const real[::1] b_o, const real[:, ::1] x_in, int activation,
                  real[:, ::1] y_on):
    """y = activation(w x + b)."""
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first
    cdef int bands = bands_of(2.0 * outputs * inputs * n), band
    assert b_o.shape[0] == outputs and x_in.shape[0] == inputs
    assert y_on.shape[0] == outputs and y_on.shape[1] == n
    if n == 0 or outputs == 0 or inputs == 0:
        return
    with nogil:
        for band in prange(bands, schedule="static", use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            _forward[real](&w_oi[0, 0] + first * inputs, &b_o[0] + first, &x_in[0, 0], activation,
                           &y_on[0, 0] + first * n, band_start(outputs, bands, band + 1) - first, inputs, n)


def dense_backward(const real[:, ::1] w_oi, const real[:, ::1] x_in, const real[:, ::1] y_on, int activation,
                   real[:, ::1] dy_on, real[:, ::1] dw_oi, real[::1] db_o, real[:, ::1] dx_in):
    """Gradients of a loss by w, b and x from that by y; `dy_on` is overwritten with the gradient by w x + b.

    dw, db and dx are overwritten, not added to. A `dx_in` of no rows is left alone: the first layer needs none.
    """
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], first
    cdef int bands = bands_of(2.0 * outputs * inputs * n), band
    assert x_in.shape[0] == inputs and y_on.shape[0] == outputs and y_on.shape[1] == n
    assert dy_on.shape[0] == outputs and dy_on.shape[1] == n
    assert dw_oi.shape[0] == outputs and dw_oi.shape[1] == inputs and db_o.shape[0] == outputs
    assert dx_in.shape[0] == 0 or (dx_in.shape[0] == inputs and dx_in.shape[1] == n)
    if n == 0 or outputs == 0 or inputs == 0:
        dw_oi[:, :] = 0
        db_o[:] = 0
        return
    with nogil:
        for band in prange(bands, schedule="static", use_threads_if=bands > 1):
            first = band_start(outputs, bands, band)
            _backward_to_weights[real](&x_in[0, 0], &y_on[0, 0] + first * n, activation, &dy_on[0, 0] + first * n,
                                       &dw_oi[0, 0] + first * inputs, &db_o[0] + first,
                                       band_start(outputs, bands, band + 1) - first, inputs, n)
        if dx_in.shape[0]:
            for band in prange(bands, schedule="static", use_threads_if=bands > 1):
                _backward_to_inputs[real](&w_oi[0, 0], &dy_on[0, 0], &dx_in[0, 0], outputs, inputs,
                                          band_start(inputs, bands, band), band_start(inputs, bands, band + 1), n)
