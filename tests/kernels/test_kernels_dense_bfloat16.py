"""Dense layers in bfloat16 against NumPy in float64 that rounds at the same places."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from distbelief.kernels import (
    ACTIVATIONS,
    dense_bfloat16_accrue,
    dense_bfloat16_accrues,
    dense_bfloat16_backward,
    dense_bfloat16_forward,
    dense_bfloat16_scratch,
    narrow,
    use_gemm16,
    use_kernels16,
    use_threads,
    widen,
)
from distbelief.processor import mkl

# (outputs, inputs, n): ones, primes, longer than a chunk of 64 and a panel of 256.
SIZES = [(1, 1, 1), (1, 17, 2), (13, 1, 11), (7, 5, 3), (101, 37, 1), (3, 2, 67), (300, 280, 65), (40, 600, 70)]
# Several runs of a minibatch; whole squares of our own products, more inputs than a panel; more than the second cache.
SIZES += [(70, 45, 1100), (96, 704, 40), (33, 2624, 260)]
# More outputs than wait for a part of the inputs, and than are derived at a time.
SIZES += [(290, 2624, 260), (600, 70, 33)]
ACTIVATE = {"linear": lambda z: z, "sigmoid": expit, "tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}
SLOPE = {
    "linear": np.ones_like,
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
    "relu": lambda y: (y > 0).astype(float),
}
HALF = 2.0**-8  # of a number's last place in bfloat16, relative: how far rounding moves it at most

sizes = pytest.mark.parametrize(("outputs", "inputs", "n"), SIZES)
activations = pytest.mark.parametrize("activation", list(ACTIVATIONS))
edges = pytest.mark.parametrize("edge", [np.uint16, np.float32])


OURS = ["amx", "avx512", "amx threads", "avx512 threads"]


@pytest.fixture(params=["widened", "mkl", "threads", *OURS])
def way(request):
    """By which way products are computed."""
    yield from use(request.param)


@pytest.fixture(params=OURS)
def our_way(request):
    """Those that are ours."""
    yield from use(request.param)


def use(way):
    if way == "mkl":
        if mkl.library() is None:
            pytest.skip("MKL is not installed")
        use_gemm16(mkl.address("cblas_gemm_bf16bf16f32"))
    ours = [kernels for kernels in ("amx", "avx512") if kernels in way]
    if ours and not use_kernels16(*ours):
        pytest.skip(f"this CPU has no {ours[0]} for bfloat16")
    use_threads(3 if "threads" in way else 1)
    yield
    use_kernels16()
    use_gemm16()
    use_threads(1)


def bits(values):
    out = np.empty(values.shape, np.uint16)
    narrow(np.ascontiguousarray(values, np.float32).reshape(-1), out.reshape(-1))
    return out


def numbers(array):
    """What an array says, in float64."""
    if array.dtype != np.uint16:
        return array.astype(np.float64)
    out = np.empty(array.shape, np.float32)
    widen(array.reshape(-1), out.reshape(-1))
    return out.astype(np.float64)


def rounded(values):
    return numbers(bits(values))


def as_edge(values, edge):
    return bits(values) if edge is np.uint16 else values.astype(np.float32)


def a_layer(outputs, inputs, n, activation, edge):
    """Arrays for the kernels, what they must overwrite full of NaN; and in `true` what NumPy makes of them."""
    random = np.random.default_rng([outputs, inputs, n])
    w, x = bits(random.standard_normal((outputs, inputs)) * inputs**-0.5), bits(random.standard_normal((inputs, n)))
    b, dy = random.standard_normal(outputs).astype(np.float32), random.standard_normal((outputs, n))
    dy = as_edge(dy, edge)
    z = numbers(w) @ numbers(x) + b.astype(np.float64)[:, None]
    y = as_edge(ACTIVATE[activation](z), edge)
    dz = numbers(dy) * SLOPE[activation](numbers(y))
    exact = rounded(dz)
    true = SimpleNamespace(
        y=ACTIVATE[activation](z), dz=exact, db=dz.sum(axis=1), dw=exact @ numbers(x).T, dx=numbers(w).T @ exact
    )
    nothing = {np.uint16: 0x7FC0, np.float32: np.nan}[edge]
    return SimpleNamespace(
        w=w, b=b, x=x, y=y, dy=dy, true=true,
        dw=np.full((outputs, inputs), np.nan, np.float32),
        db=np.full(outputs, np.nan, np.float32),
        dx=np.full((inputs, n), nothing, edge),
        scratch=np.full(dense_bfloat16_scratch(outputs, inputs, n), np.nan, np.float32),
    )  # fmt: skip


def assert_sums(actual, true):
    """Float32 sums of exact products: the roundings of float32 alone."""
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, true, rtol=0, atol=1e-5 * max(1, np.abs(true).max()))


def assert_edge(actual, true):
    """The same, then rounded to bfloat16: to the nearest or, where a sum's rounding decides, to the one beside it."""
    if actual.dtype == np.float32:
        return assert_sums(actual, true)
    assert np.all(np.abs(numbers(actual) - true) <= HALF * np.abs(true) + 1e-5 * max(1, np.abs(true).max()))
    if true.size > 1000:
        assert (numbers(actual) == rounded(true)).mean() > 0.98


def forward(layer, activation):
    y = np.full_like(layer.y, 0x7FC0 if layer.y.dtype == np.uint16 else np.nan)
    dense_bfloat16_forward(layer.w, layer.b, layer.x, ACTIVATIONS[activation], y, layer.scratch)
    return y


def backward(layer, activation):
    """Afterwards layer.dz is what lies in the place of dy: each row where dy's began."""
    arrays = (layer.dy, layer.dw, layer.db, layer.dx, layer.scratch)
    dense_bfloat16_backward(layer.w, layer.x, layer.y, ACTIVATIONS[activation], *arrays)
    layer.dz = np.ascontiguousarray(layer.dy.view(np.uint16)[:, : layer.dy.shape[1]])


@sizes
@activations
@edges
def test_forward_rounds_the_output_alone(way, outputs, inputs, n, activation, edge):
    layer = a_layer(outputs, inputs, n, activation, edge)
    assert_edge(forward(layer, activation), layer.true.y)


@sizes
@activations
@edges
def test_backward_rounds_before_the_products_and_the_gradient_by_the_inputs(way, outputs, inputs, n, activation, edge):
    layer = a_layer(outputs, inputs, n, activation, edge)
    backward(layer, activation)
    # dz comes from a few float32 operations: a tie apart, it is the true one, and then all products are.
    np.testing.assert_allclose(numbers(layer.dz), layer.true.dz, rtol=2 * HALF, atol=1e-30)
    exact = numbers(layer.dz)
    assert_sums(layer.db, layer.true.db)
    assert_sums(layer.dw, exact @ numbers(layer.x).T)
    assert_edge(layer.dx, numbers(layer.w).T @ exact)


# Summed in one go.
short = pytest.mark.parametrize(("outputs", "inputs", "n"), [size for size in SIZES if size[-1] <= 1024])


def accrue(layer, activation, *step, masters=()):
    """As `backward`: what has accrued is in dw and db."""
    arrays = (layer.dy, layer.dw, layer.db, layer.dx, layer.scratch)
    dense_bfloat16_accrue(layer.w, layer.x, layer.y, ACTIVATIONS[activation], *arrays, *step, *masters)
    layer.dz = np.ascontiguousarray(layer.dy.view(np.uint16)[:, : layer.dy.shape[1]])


@short
@edges
@pytest.mark.parametrize(("weight", "rate", "fresh"), [(1.0, 0.125, True), (1.0, 0.125, False), (3.0, 0.0, False)])
def test_accrue_takes_in_the_gradient(our_way, outputs, inputs, n, edge, weight, rate, fresh):
    layer = a_layer(outputs, inputs, n, "sigmoid", edge)
    random = np.random.default_rng(5)
    before_w, before_b = random.standard_normal((outputs, inputs)), random.standard_normal(outputs)
    if not fresh:
        layer.dw[:], layer.db[:] = before_w, before_b  # else they stay NaN
    masters = (before_w.astype(np.float32), before_b.astype(np.float32)) if rate else ()
    accrue(layer, "sigmoid", weight, rate, fresh, masters=masters)
    exact = numbers(layer.dz)
    dw = exact @ numbers(layer.x).T
    assert_sums(layer.dw, weight * dw + (0 if fresh else before_w))
    assert_sums(layer.db, weight * layer.true.db + (0 if fresh else before_b))
    assert_edge(layer.dx, numbers(layer.w).T @ exact)
    if rate:
        assert_sums(masters[0], before_w - rate * dw)
        assert_sums(masters[1], before_b - rate * layer.true.db)


@short
@edges
def test_weights_that_are_held_in_bfloat16_take_the_step_themselves(our_way, outputs, inputs, n, edge):
    """Rounded again, after the gradient by the inputs has been computed by what they were."""
    layer = a_layer(outputs, inputs, n, "tanh", edge)
    w, b = layer.w.copy(), bits(layer.b)
    before_b = numbers(b)
    accrue(layer, "tanh", 1.0, 0.125, True, masters=(None, None, layer.w, b))
    exact = numbers(layer.dz)
    dw = exact @ numbers(layer.x).T
    assert_sums(layer.dw, dw)
    assert_edge(layer.dx, numbers(w).T @ exact)
    assert_edge(layer.w, numbers(w) - 0.125 * dw)
    assert_edge(b, before_b - 0.125 * layer.true.db)


def test_no_large_batch_accrues(our_way):
    """Their products are summed in parts, and a step would be rounded with each."""
    assert dense_bfloat16_accrues(64, 64, 1024) and not dense_bfloat16_accrues(64, 64, 1025)


def test_nothing_accrues_where_products_are_others():
    assert not dense_bfloat16_accrues(64, 64, 64)
    with pytest.raises(AssertionError):
        accrue(a_layer(4, 3, 5, "relu", np.uint16), "relu", 1.0, 0.0, True)


@pytest.mark.parametrize("kind", [np.float32, np.uint16])
@pytest.mark.parametrize("name", ["w", "x", "y", "dy", "dw", "db", "dx", "scratch", "stepped w", "stepped b"])
def test_wrong_shapes_are_refused_by_what_accrues(our_way, name, kind):
    layer = a_layer(4, 3, 5, "relu", np.uint16)
    masters = [np.zeros((4, 3), kind), np.zeros(4, kind)]
    if name.startswith("stepped"):
        masters[name.endswith("b")] = masters[name.endswith("b")][:-1].copy()
    else:
        short = getattr(layer, name)[: 7 if name == "scratch" else -1]
        setattr(layer, name, np.ascontiguousarray(short))
    with pytest.raises((AssertionError, ValueError)):
        accrue(layer, "relu", 1.0, 0.1, True, masters=masters if kind is np.float32 else [None, None, *masters])


@edges
def test_without_rows_for_dx_the_other_gradients_come_all_the_same(way, edge):
    layer = a_layer(13, 7, 5, "sigmoid", edge)
    layer.dx = np.empty((0, 5), np.float32)
    backward(layer, "sigmoid")
    assert_sums(layer.dw, numbers(layer.dz) @ numbers(layer.x).T)
    assert_sums(layer.db, layer.true.db)


@edges
def test_a_batch_of_nothing_has_a_gradient_of_zero(way, edge):
    layer = a_layer(3, 2, 0, "relu", edge)
    assert forward(layer, "relu").shape == (3, 0)
    backward(layer, "relu")
    assert not layer.dw.any() and not layer.db.any()


def test_fewer_threads_where_scratch_is_planned_for_fewer():
    few = a_layer(300, 280, 65, "tanh", np.uint16)
    use_threads(3)
    try:
        many = a_layer(300, 280, 65, "tanh", np.uint16)
        assert many.scratch.size > few.scratch.size
        np.testing.assert_array_equal(forward(few, "tanh"), forward(many, "tanh"))
        with pytest.raises(AssertionError):
            few.scratch = few.scratch[:-1]
            forward(few, "tanh")
    finally:
        use_threads(1)


@pytest.mark.parametrize("name", ["w", "b", "x", "y", "scratch"])
def test_wrong_shapes_are_refused_forwards(name):
    layer = a_layer(4, 3, 5, "relu", np.uint16)
    setattr(layer, name, np.ascontiguousarray(getattr(layer, name)[:-1]))
    with pytest.raises((AssertionError, ValueError)):
        forward(layer, "relu")


@pytest.mark.parametrize("name", ["w", "x", "y", "dy", "dw", "db", "dx", "scratch"])
def test_wrong_shapes_are_refused_backwards(name):
    layer = a_layer(4, 3, 5, "relu", np.uint16)
    setattr(layer, name, np.ascontiguousarray(getattr(layer, name)[:-1]))
    with pytest.raises((AssertionError, ValueError)):
        backward(layer, "relu")
