"""Every kind of layer: against plain NumPy, against finite differences, and cut into bands."""

import numpy as np
import pytest
from nn.layer_cases import LAYERS, backward, forward, name_of, reference, some_parameters

from distbelief.errors import UserError
from distbelief.nn import Convolution, Dense, LocallyConnected, Normalise, Pool

every_layer = pytest.mark.parametrize("layer", LAYERS, ids=name_of)
batches = pytest.mark.parametrize("n", [1, 3, 35])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
TOLERANCE = {np.float32: 3e-5, np.float64: 1e-12}


def images(layer, n, dtype=np.float64, seed=2):
    random = np.random.default_rng([seed, n])
    return tuple(random.standard_normal((*shape, n)).astype(dtype) for shape in (layer.below, layer.shape))


def assert_close(actual, true):
    tolerance = TOLERANCE[actual.dtype.type] * max(1, np.abs(true).max())
    np.testing.assert_allclose(actual, true, rtol=0, atol=tolerance)


def cuts(layer):
    """Into two, into three and into single rows, as far as the output has them: [(start, stop), ...]."""
    rows = layer.shape[0]
    for parts in sorted({min(rows, 2), min(rows, 3), rows}):
        edges = [rows * i // parts for i in range(parts + 1)]
        yield list(zip(edges, edges[1:], strict=False))


def slices(layer, tensors, start, stop):
    return tensors if layer.tied else {name: np.ascontiguousarray(t[start:stop]) for name, t in tensors.items()}


@every_layer
@batches
@dtypes
def test_forward_is_numpys(layer, n, dtype):
    x, _ = images(layer, n, dtype)
    parameters = some_parameters(layer, dtype)
    assert_close(forward(layer, parameters, x)[0], reference(layer, parameters, x))


@every_layer
def test_backward_is_the_derivative_of_forward(layer):
    """Central differences of sum(dy y) by every input and weight."""
    x, dy = images(layer, 2)
    parameters = some_parameters(layer)
    dx, gradient = backward(layer, parameters, x, dy)
    step = 1e-5
    for value, true in [(x, dx), *((parameters[name], gradient[name]) for name in parameters)]:
        differences = np.empty_like(value)
        for place in np.ndindex(value.shape):
            middle, ends = value[place], []
            for sign in (1, -1):
                value[place] = middle + sign * step
                ends.append((dy * forward(layer, parameters, x)[0]).sum())
            value[place] = middle
            differences[place] = (ends[0] - ends[1]) / (2 * step)
        # A map of one pixel normalised by itself is 0 whatever it is, and so is its gradient.
        assert np.linalg.norm(true - differences) < 1e-6 * max(np.linalg.norm(differences), 1e-3)


@every_layer
@batches
def test_float32_goes_backwards_as_float64_does(layer, n):
    x, dy = images(layer, n, np.float32)
    parameters = some_parameters(layer, np.float32)
    dx, gradient = backward(layer, parameters, x, dy)
    doubles = {name: tensor.astype(float) for name, tensor in parameters.items()}
    true_dx, true = backward(layer, doubles, x.astype(float), dy.astype(float))
    assert_close(dx, true_dx)
    for name in true:
        assert_close(gradient[name], true[name])


@every_layer
def test_without_rows_for_dx_the_gradient_comes_all_the_same(layer):
    x, dy = images(layer, 3)
    parameters = some_parameters(layer)
    true = backward(layer, parameters, x, dy)[1]
    y, scratch = forward(layer, parameters, x)
    gradient = {name: np.full(shape, np.nan) for name, shape in layer.shapes.items()}
    layer.backward(parameters, x, y, dy, gradient, np.empty((0, *x.shape[1:])), scratch)
    for name in true:
        np.testing.assert_array_equal(gradient[name], true[name])


@every_layer
def test_examples_do_not_touch_each_other(layer):
    """In batches that are worth several threads, too: each example is as it is alone."""
    x, dy = images(layer, 1201, np.float32)
    parameters = some_parameters(layer, np.float32)
    y, (dx, _) = forward(layer, parameters, x)[0], backward(layer, parameters, x, dy)
    for place in (0, 17, 600, 1200):
        alone = slice(place, place + 1)
        x_alone, dy_alone = (np.ascontiguousarray(array[..., alone]) for array in (x, dy))
        assert_close(y[..., alone], forward(layer, parameters, x_alone)[0])
        assert_close(dx[..., alone], backward(layer, parameters, x_alone, dy_alone)[0])


@every_layer
@dtypes
def test_cuts_side_by_side_are_the_layer(layer, dtype):
    x, _ = images(layer, 3, dtype)
    parameters = some_parameters(layer, dtype)
    whole = forward(layer, parameters, x)[0]
    for bands in cuts(layer):
        parts = []
        for start, stop in bands:
            part, (first, last) = layer.cut(start, stop), layer.region(start, stop)
            mine = slices(layer, parameters, start, stop)
            assert part.below == (last - first, *layer.below[1:]) and part.shape == (stop - start, *layer.shape[1:])
            assert part.shapes == {name: tensor.shape for name, tensor in mine.items()}
            assert [part.spread(name) for name in part.shapes] == [layer.spread(name) for name in layer.shapes]
            parts.append(forward(part, mine, x[first:last])[0])
        assert_close(np.concatenate(parts), whole)


@every_layer
@dtypes
def test_the_gradients_of_cuts_make_up_that_of_the_layer(layer, dtype):
    x, dy = images(layer, 3, dtype)
    parameters = some_parameters(layer, dtype)
    whole_dx, whole = backward(layer, parameters, x, dy)
    for bands in cuts(layer):
        sum_dx, gradients = np.zeros_like(x), []
        for start, stop in bands:
            first, last = layer.region(start, stop)
            mine = slices(layer, parameters, start, stop)
            dx, gradient = backward(layer.cut(start, stop), mine, x[first:last], dy[start:stop])
            sum_dx[first:last] += dx
            gradients.append(gradient)
        assert_close(sum_dx, whole_dx)
        for name in whole:
            parts = [gradient[name] for gradient in gradients]
            assert_close(sum(parts) if layer.tied else np.concatenate(parts), whole[name])


@every_layer
def test_a_region_is_what_the_rows_need_and_no_more(layer):
    """Another number in its first or last row shows in the output; numbers outside of it do not."""
    x, _ = images(layer, 1)
    parameters = some_parameters(layer)
    whole = forward(layer, parameters, x)[0]
    for start in range(layer.shape[0]):
        first, last = layer.region(start, start + 1)
        outside = x.copy()
        outside[:first], outside[last:] = 9, 9
        np.testing.assert_allclose(forward(layer, parameters, outside)[0][start], whole[start], rtol=1e-12)
        if getattr(layer, "function", "") == "max":
            continue  # only the largest shows
        for row in (first, last - 1):
            inside = x.copy()
            inside[row] += 100 * np.random.default_rng(3).standard_normal(inside[row].shape)
            assert not np.allclose(forward(layer, parameters, inside)[0][start], whole[start], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "layer", [layer for layer in LAYERS if len(layer.shape) == 3 and layer.shape[0] > 2], ids=name_of
)
def test_a_cut_of_a_cut(layer):
    x, _ = images(layer, 2)
    parameters = some_parameters(layer)
    whole = forward(layer, parameters, x)[0]
    outer, (first, _) = layer.cut(1, layer.shape[0]), layer.region(1, layer.shape[0])
    inner, (begin, end) = outer.cut(1, 2), outer.region(1, 2)
    mine = slices(layer, parameters, 2, 3)
    assert_close(forward(inner, mine, x[first + begin : first + end])[0], whole[2:3])


@dtypes
def test_l2_pooling_of_zeros_has_gradient_zero(dtype):
    layer = Pool("pool0", (4, 4, 1), 2)
    x, dy = np.zeros((4, 4, 1, 2), dtype), np.ones((2, 2, 1, 2), dtype)
    assert not forward(layer, {}, x)[0].any() and not backward(layer, {}, x, dy)[0].any()


def test_of_equal_maxima_the_first_takes_the_gradient():
    layer = Pool("pool0", (2, 3, 1), 2, 1, "max")
    dx, _ = backward(layer, {}, np.ones((2, 3, 1, 1)), np.array([5.0, 7.0]).reshape(1, 2, 1, 1))
    np.testing.assert_array_equal(dx[..., 0, 0], [[5, 7, 0], [0, 0, 0]])


def test_what_no_window_reaches_has_gradient_zero():
    for function in ("l2", "max", "average"):
        layer = Pool("pool0", (6, 5, 1), 2, 4, function)
        dx, _ = backward(layer, {}, np.ones((6, 5, 1, 3)), np.ones((*layer.shape, 3)))
        reached = np.zeros((6, 5), bool)
        reached[[0, 0, 1, 1, 4, 4, 5, 5], [0, 1, 0, 1] * 2] = True
        assert not dx[~reached].any() and dx[reached].any()


@pytest.mark.parametrize("layer", [Pool("p", (4, 4, 3), 2, 2, f) for f in ("l2", "max", "average")], ids=name_of)
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 1)])
def test_pooling_lets_nan_through(layer, place):
    x = np.ones((4, 4, 3, 16))
    x[(*place, 1, 5)] = np.nan
    stray = np.isnan(forward(layer, {}, x)[0])
    assert stray[0, 0, 1, 5] and stray.sum() == 1


@dtypes
@pytest.mark.parametrize("level", [0, 1, 1000])
def test_a_constant_image_is_normalised_to_zero(dtype, level):
    """At its borders too: the weights of what is left of the window sum to one."""
    layer = Normalise("normalise0", (9, 8, 3), 5)
    y, _ = forward(layer, {}, np.full((9, 8, 3, 2), level, dtype))
    assert np.abs(y).max() <= 100 * level * np.finfo(dtype).eps * 10


def test_normalisation_takes_contrast_and_level_away():
    layer = Normalise("normalise0", (9, 8, 3), 5, 1e-6)
    x, _ = images(layer, 2)
    np.testing.assert_allclose(forward(layer, {}, 7 * x + 3)[0], forward(layer, {}, x)[0], rtol=0, atol=1e-12)


def test_the_floor_holds_where_there_is_little_contrast():
    layer = Normalise("normalise0", (5, 5, 1), 3, 10.0)
    x, _ = images(layer, 2)
    np.testing.assert_allclose(forward(layer, {}, 2 * x)[0], 2 * forward(layer, {}, x)[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LocallyConnected("l", (8, 8, 3), 2, 9), "a window of [9, 9] does not fit into the [8, 8, 3] below"),
        (lambda: Pool("p", (8, 2, 3), 3), "a window of [3, 3] does not fit into the [8, 2, 3] below"),
        (lambda: Normalise("n", (4, 8, 3), 5), "a window of [5, 5] does not fit into the [4, 8, 3] below"),
        (lambda: Normalise("n", (8, 8, 3), 4), "a window of [4, 4] has no middle"),
        (lambda: Normalise("n", (8, 8, 3), 3, 0.0), "a floor of 0.0"),
        (
            lambda: Convolution("c", (8, 8, 3), 2, 2, 9),
            "a stride of 9 leaves nothing of the [8, 8, 3] below beside a window of [2, 2]",
        ),
        (
            lambda: Pool("p", (5, 20, 2), (4, 6), 6),
            "a stride of 6 leaves nothing of the [5, 20, 2] below beside a window of [4, 6]",
        ),
        (lambda: Pool("p", (20, 5, 2), (6, 4), 6), "a stride of 6 leaves nothing of the [20, 5, 2] below"),
        (lambda: Pool("p", (8, 8, 3), (2, 3)), "a window of [2, 3] needs a stride"),
        (lambda: Pool("p", (8, 8, 3), 2, 0), "stride: 0, expected 1 or more"),
        (lambda: Convolution("c", (8, 8, 3), 2, 2, -1), "stride: -1, expected 1 or more"),
        (lambda: LocallyConnected("l", (8, 8, 3), 2, (3, 0)), "window: 0, expected 1 or more"),
        (lambda: LocallyConnected("l", (8, 8, 3), 0, 3), "maps: 0, expected 1 or more"),
        (lambda: Dense("d", 3, 0), "outputs: 0, expected 1 or more"),
        (lambda: Convolution("c", (8, 8, 3), 2, (3, 3, 3)), "window: [3, 3, 3], expected a number or [height, width]"),
        (lambda: Dense("d", 3, 2, "gelu"), "activation: 'gelu', expected one of: linear, sigmoid, tanh, relu"),
        (lambda: LocallyConnected("l", (8, 8, 3), 2, 2, 1, "gelu"), "activation: 'gelu', expected one of: linear"),
        (lambda: Pool("p", (8, 8, 3), 2, 2, "l1"), "function: 'l1', expected one of: l2, max, average"),
        (lambda: Convolution("c", (64,), 2, 2), "takes an image [H, W, C], found [64] below"),
    ],
)
def test_what_does_not_fit_is_refused(make, text):
    with pytest.raises(UserError) as caught:
        make()
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Pool("p", (5, 20, 2), 5, 6), (1, 3, 2)),
        (Pool("p", (20, 5, 2), 5, 6), (3, 1, 2)),
        (Convolution("c", (8, 8, 3), 2, 8, 9), (1, 1, 2)),
    ],
)
def test_along_an_axis_that_a_window_covers_any_stride_will_do(layer, shape):
    assert layer.shape == shape


def test_flops_of_filters_count_every_product():
    assert Dense("d", (2, 3, 4), 5).flops(7) == 2 * 24 * 5 * 7
    for kind in (LocallyConnected, Convolution):
        assert kind("l", (7, 5, 3), 2, (3, 2), 2).flops(11) == 2 * (3 * 2 * 2) * (3 * 2 * 3) * 11


def test_weights_begin_by_what_a_filter_sees():
    relu, sigmoid = (LocallyConnected("l", (9, 9, 3), 8, (3, 5), 1, a) for a in ("relu", "sigmoid"))
    assert relu.spread("l.w") == pytest.approx((6 / 45) ** 0.5) and relu.spread("l.b") == 0
    assert sigmoid.spread("l.w") == pytest.approx(4 * (6 / (45 + 120)) ** 0.5)
