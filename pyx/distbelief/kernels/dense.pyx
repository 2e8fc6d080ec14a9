# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Dense layer: products by BLAS, bias and activation in one pass over the outputs.

Arrays are C-contiguous and feature-first: x [inputs, n], y [outputs, n]; w [outputs, inputs], b [outputs].
"""

from distbelief.kernels.blas cimport gemm
from distbelief.kernels.exponential cimport hyperbolic_tangent, logistic
from distbelief.kernels.real cimport real

# The numbers of the activations; ACTIVATIONS names them for Python.
cdef enum:
    LINEAR = 0
    SIGMOID = 1
    TANH = 2
    RELU = 3

ACTIVATIONS = {"linear": LINEAR, "sigmoid": SIGMOID, "tanh": TANH, "relu": RELU}


cdef void _activate(real *y, real bias, Py_ssize_t n, int activation) noexcept nogil:
    """y = activation(y + bias) over one row of n outputs."""
    cdef Py_ssize_t j
    cdef real z
    if activation == LINEAR:
        for j in range(n):
            y[j] = y[j] + bias
    elif activation == SIGMOID:
        for j in range(n):
            y[j] = logistic[real](y[j] + bias)
    elif activation == TANH:
        for j in range(n):
            y[j] = hyperbolic_tangent[real](y[j] + bias)
    else:
        for j in range(n):
            z = y[j] + bias
            y[j] = <real>0 if z < 0 else z  # this way round a NaN stays a NaN


cdef real _derive(const real *y, real *dy, Py_ssize_t n, int activation) noexcept nogil:
    """dy *= activation'(z), told from y = activation(z), over one row; returns the row's sum (the bias gradient)."""
    cdef Py_ssize_t j
    cdef double total = 0
    if activation == SIGMOID:
        for j in range(n):
            dy[j] = dy[j] * y[j] * (<real>1 - y[j])
    elif activation == TANH:
        for j in range(n):
            dy[j] = dy[j] * (<real>1 - y[j] * y[j])
    elif activation == RELU:
        for j in range(n):
            dy[j] = dy[j] if y[j] > 0 else <real>0
    for j in range(n):
        total += dy[j]
    return <real>total


def dense_forward(const real[:, ::1] w_oi, const real[::1] b_o, const real[:, ::1] x_in, int activation,
                  real[:, ::1] y_on):
    """y = activation(w x + b)."""
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], o
    assert b_o.shape[0] == outputs and x_in.shape[0] == inputs
    assert y_on.shape[0] == outputs and y_on.shape[1] == n
    if n == 0 or outputs == 0 or inputs == 0:
        return
    with nogil:
        gemm[real](b'n', b'n', <int>outputs, <int>n, <int>inputs, <real *>&w_oi[0, 0], <int>inputs,
                   <real *>&x_in[0, 0], <int>n, 0, &y_on[0, 0], <int>n)
        for o in range(outputs):
            _activate(&y_on[o, 0], b_o[o], n, activation)


def dense_backward(const real[:, ::1] w_oi, const real[:, ::1] x_in, const real[:, ::1] y_on, int activation,
                   real[:, ::1] dy_on, real[:, ::1] dw_oi, real[::1] db_o, real[:, ::1] dx_in):
    """Gradients of a loss by w, b and x from that by y; `dy_on` is overwritten with the gradient by w x + b.

    dw, db and dx are overwritten, not added to. A `dx_in` of no rows is left alone: the first layer needs none.
    """
    cdef Py_ssize_t outputs = w_oi.shape[0], inputs = w_oi.shape[1], n = x_in.shape[1], o
    assert x_in.shape[0] == inputs and y_on.shape[0] == outputs and y_on.shape[1] == n
    assert dy_on.shape[0] == outputs and dy_on.shape[1] == n
    assert dw_oi.shape[0] == outputs and dw_oi.shape[1] == inputs and db_o.shape[0] == outputs
    assert dx_in.shape[0] == 0 or (dx_in.shape[0] == inputs and dx_in.shape[1] == n)
    if n == 0 or outputs == 0 or inputs == 0:
        dw_oi[:, :] = 0
        db_o[:] = 0
        return
    with nogil:
        for o in range(outputs):
            db_o[o] = _derive(&y_on[o, 0], &dy_on[o, 0], n, activation)
        gemm[real](b'n', b't', <int>outputs, <int>inputs, <int>n, &dy_on[0, 0], <int>n,
                   <real *>&x_in[0, 0], <int>n, 0, &dw_oi[0, 0], <int>inputs)
        if dx_in.shape[0]:
            gemm[real](b't', b'n', <int>inputs, <int>n, <int>outputs, <real *>&w_oi[0, 0], <int>inputs,
                       &dy_on[0, 0], <int>n, 0, &dx_in[0, 0], <int>n)
