"""Dense layers against NumPy in float64 and against finite differences."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from distbelief.kernels import ACTIVATIONS, dense_accrue, dense_accrues, dense_backward, dense_forward, use_threads

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
# (outputs, inputs, n): ones, primes, a batch of one, longer than a vector register and its remainder.
SIZES = [(1, 1, 1), (1, 17, 2), (13, 1, 11), (7, 5, 3), (101, 37, 1), (3, 2, 67), (64, 48, 32)]

ACTIVATE = {"linear": lambda z: z, "sigmoid": expit, "tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}
DERIVE = {
    "linear": np.ones_like,
    "sigmoid": lambda z: expit(z) * expit(-z),
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "relu": lambda z: (z > 0).astype(z.dtype),
}

sizes = pytest.mark.parametrize(("outputs", "inputs", "n"), SIZES)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
activations = pytest.mark.parametrize("activation", list(ACTIVATIONS))


def a_layer(outputs, inputs, n, activation, dtype=np.float64, seed=0):
    """One layer in the middle of training: its arrays in `dtype`, and in `true` what NumPy makes of them in float64.

    What a kernel may only read is read-only, what it must overwrite is full of NaN.
    """
    random = np.random.default_rng([seed, outputs, inputs, n])

    def given(*shape, spread=1.0):
        return (spread * random.standard_normal(shape)).astype(dtype)

    w, b, x, dy = given(outputs, inputs, spread=inputs**-0.5), given(outputs), given(inputs, n), given(outputs, n)
    z = w.astype(np.float64) @ x.astype(np.float64) + b.astype(np.float64)[:, None]
    dz = dy.astype(np.float64) * DERIVE[activation](z)
    true = SimpleNamespace(
        y=ACTIVATE[activation](z),
        dz=dz,
        dw=dz @ x.T.astype(np.float64),
        db=dz.sum(axis=1),
        dx=w.T.astype(np.float64) @ dz,
    )
    y = true.y.astype(dtype)
    for array in (w, b, x, y):
        array.flags.writeable = False
    dw, db, dx = (np.full(array.shape, np.nan, dtype) for array in (w, b, x))
    return SimpleNamespace(w=w, b=b, x=x, y=y, dy=dy, dw=dw, db=db, dx=dx, true=true)


def assert_close(actual, true):
    tolerance = TOLERANCE[actual.dtype.type] * max(1, np.abs(true).max())
    np.testing.assert_allclose(actual, true, rtol=0, atol=tolerance)


def forward(layer, activation):
    y = np.full_like(layer.y, np.nan)
    dense_forward(layer.w, layer.b, layer.x, ACTIVATIONS[activation], y)
    return y


def backward(layer, activation):
    dense_backward(layer.w, layer.x, layer.y, ACTIVATIONS[activation], layer.dy, layer.dw, layer.db, layer.dx)


def test_the_activations_are_these():
    assert set(ACTIVATIONS) == set(ACTIVATE)


@sizes
@dtypes
@activations
def test_forward_is_numpys(outputs, inputs, n, activation, dtype):
    layer = a_layer(outputs, inputs, n, activation, dtype)
    assert_close(forward(layer, activation), layer.true.y)


@sizes
@dtypes
@activations
def test_backward_is_numpys(outputs, inputs, n, activation, dtype):
    layer = a_layer(outputs, inputs, n, activation, dtype)
    backward(layer, activation)
    assert_close(layer.dw, layer.true.dw)
    assert_close(layer.db, layer.true.db)
    assert_close(layer.dx, layer.true.dx)


@dtypes
@activations
def test_backward_leaves_the_gradient_by_w_x_plus_b_in_dy(activation, dtype):
    layer = a_layer(7, 5, 3, activation, dtype)
    backward(layer, activation)
    assert_close(layer.dy, layer.true.dz)


@activations
def test_backward_is_the_derivative_of_forward(activation):
    """Central differences of sum(c * y) by every weight, bias and input: truncation about 1e-10, rounding 1e-11."""
    layer = a_layer(5, 4, 3, activation)
    layer.y = forward(layer, activation)
    c = layer.dy.copy()
    backward(layer, activation)
    step = 1e-5
    for name, gradient in [("w", layer.dw), ("b", layer.db), ("x", layer.dx)]:
        value = getattr(layer, name).copy()
        setattr(layer, name, value)
        differences = np.empty_like(value)
        for place in np.ndindex(value.shape):
            middle, ends = value[place], []
            for sign in (1, -1):
                value[place] = middle + sign * step
                ends.append((c * forward(layer, activation)).sum())
            value[place] = middle
            differences[place] = (ends[0] - ends[1]) / (2 * step)
        assert np.linalg.norm(gradient - differences) < 1e-6 * np.linalg.norm(differences), name


@dtypes
@pytest.mark.parametrize("rows_of_nothing", [(0, 0), (0, 3)])
def test_without_rows_for_dx_the_other_gradients_come_all_the_same(dtype, rows_of_nothing):
    layer = a_layer(7, 5, 3, "tanh", dtype)
    layer.dx = np.empty(rows_of_nothing, dtype)
    backward(layer, "tanh")
    assert_close(layer.dw, layer.true.dw)
    assert_close(layer.db, layer.true.db)
    assert_close(layer.dy, layer.true.dz)


@dtypes
@activations
def test_a_batch_of_nothing_has_a_gradient_of_zero(activation, dtype):
    layer = SimpleNamespace(w=np.ones((3, 2), dtype), b=np.ones(3, dtype), x=np.ones((2, 0), dtype))
    layer.y, layer.dy = np.ones((3, 0), dtype), np.ones((3, 0), dtype)
    layer.dw, layer.db, layer.dx = np.full((3, 2), 9, dtype), np.full(3, 9, dtype), np.ones((2, 0), dtype)
    assert forward(layer, activation).shape == (3, 0)
    backward(layer, activation)
    assert not layer.dw.any() and not layer.db.any()


@dtypes
@activations
def test_nan_passes_through_every_activation(activation, dtype):
    """relu too: max(0, NaN) is 0 in many implementations, and hides a run that has diverged."""
    layer = a_layer(3, 2, 4, activation, dtype)
    layer.x = layer.x.copy()
    layer.x[1, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(forward(layer, activation)), [[False, False, True, False]] * 3)


@dtypes
@pytest.mark.parametrize(("activation", "ends"), [("sigmoid", [0, 1]), ("tanh", [-1, 1])])
def test_activations_saturate_without_overflow(activation, ends, dtype):
    y = np.full((1, 2), np.nan, dtype)
    x = np.array([[-1e4, 1e4]], dtype)
    dense_forward(np.ones((1, 1), dtype), np.zeros(1, dtype), x, ACTIVATIONS[activation], y)
    np.testing.assert_array_equal(y, [ends])


def accrue(layer, activation, weight=1.0, rate=0.0, fresh=False):
    """What accrued before, w and b after it; the layer's dw and db are what has accrued. All are the caller's own."""
    random = np.random.default_rng(3)
    before = [random.standard_normal(array.shape).astype(array.dtype) for array in (layer.dw, layer.db)]
    if not fresh:
        layer.dw[:], layer.db[:] = before  # else they stay NaN
    w, b, step = layer.w.copy(), layer.b.copy(), (weight, rate, fresh)
    dense_accrue(w, b, layer.x, layer.y, ACTIVATIONS[activation], layer.dy, layer.dw, layer.db, layer.dx, *step)
    return before, w, b


# With strips of 32 columns and of 16, whole and not, and more examples than are summed over at once.
@pytest.mark.parametrize(("outputs", "inputs", "n"), [*SIZES, (25, 96, 16), (12, 56, 513), (1, 32, 1030)])
@dtypes
@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("rate", [0.0, 0.125])
@pytest.mark.parametrize("fresh", [True, False])
def test_accrue_takes_in_numpys_gradient(outputs, inputs, n, dtype, weight, rate, fresh):
    layer = a_layer(outputs, inputs, n, "tanh", dtype)
    (accrued_w, accrued_b), w, b = accrue(layer, "tanh", weight, rate, fresh)
    assert_close(layer.dw, weight * layer.true.dw + (0 if fresh else accrued_w))
    assert_close(layer.db, weight * layer.true.db + (0 if fresh else accrued_b))
    assert_close(w, layer.w - rate * layer.true.dw)
    assert_close(b, layer.b - rate * layer.true.db)
    assert_close(layer.dx, layer.true.dx)  # by w as it was
    assert_close(layer.dy, layer.true.dz)


@dtypes
def test_a_step_of_no_length_touches_no_parameters(dtype):
    """Not even by 0 times what is not finite."""
    layer = a_layer(7, 40, 3, "relu", dtype)
    layer.dy[2, 1], layer.y = np.inf, np.abs(layer.y) + 1
    _, w, b = accrue(layer, "relu")
    np.testing.assert_array_equal(w, layer.w)
    np.testing.assert_array_equal(b, layer.b)
    assert not np.isfinite(layer.dw[2]).all() and np.isfinite(layer.dw[3]).all()


@dtypes
def test_threads_share_what_accrues(dtype):
    layer = a_layer(301, 257, 64, "sigmoid", dtype)
    try:
        use_threads(3)
        (accrued, _), w, _ = accrue(layer, "sigmoid", rate=0.125)
    finally:
        use_threads(1)
    assert_close(layer.dw, layer.true.dw + accrued)
    assert_close(w, layer.w - 0.125 * layer.true.dw)
    assert_close(layer.dx, layer.true.dx)


def test_no_layer_without_numbers_accrues():
    assert not any(dense_accrues(*sizes) for sizes in [(0, 3, 4), (3, 0, 4), (3, 4, 0)])


def accrue_arguments(dtype=np.float32):
    layer = a_layer(4, 3, 5, "relu", dtype)
    relu, step = ACTIVATIONS["relu"], (1.0, 0.1, True)
    return [layer.w.copy(), layer.b.copy(), layer.x, layer.y, relu, layer.dy, layer.dw, layer.db, layer.dx, *step]


def forward_arguments(dtype=np.float32):
    layer = a_layer(4, 3, 5, "relu", dtype)
    return [layer.w, layer.b, layer.x, ACTIVATIONS["relu"], layer.dy]


def backward_arguments(dtype=np.float32):
    layer = a_layer(4, 3, 5, "relu", dtype)
    return [layer.w, layer.x, layer.y, ACTIVATIONS["relu"], layer.dy, layer.dw, layer.db, layer.dx]


KERNELS = [
    (dense_forward, forward_arguments),
    (dense_backward, backward_arguments),
    (dense_accrue, accrue_arguments),
]
ARRAYS = [
    (kernel, arguments, place)
    for kernel, arguments in KERNELS
    for place, argument in enumerate(arguments())
    if isinstance(argument, np.ndarray)
]
arrays = pytest.mark.parametrize(
    ("kernel", "arguments", "place"), ARRAYS, ids=[f"{kernel.__name__}-{place}" for kernel, _, place in ARRAYS]
)


@arrays
@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_shapes_are_refused(kernel, arguments, place, change):
    """Each array in turn, one too long or too short along each of its axes."""
    right = arguments()
    for axis in range(right[place].ndim):
        shape = list(right[place].shape)
        shape[axis] += change
        wrong = [*right[:place], np.zeros(shape, np.float32), *right[place + 1 :]]
        with pytest.raises((AssertionError, ValueError)):
            kernel(*wrong)
    kernel(*right)


@arrays
def test_mixed_float_types_are_refused(kernel, arguments, place):
    wrong = arguments()
    wrong[place] = wrong[place].astype(np.float64)
    with pytest.raises((TypeError, ValueError)):
        kernel(*wrong)


@arrays
def test_arrays_that_are_not_contiguous_are_refused(kernel, arguments, place):
    wrong = arguments()
    wrong[place] = np.repeat(wrong[place], 2, axis=-1)[..., ::2]
    with pytest.raises(ValueError, match="contiguous"):
        kernel(*wrong)


def test_outputs_that_are_read_only_are_refused():
    *given, y = forward_arguments()
    y.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        dense_forward(*given, y)
