"""Locally connected layers with weights in bfloat16: to the last bit what the float32 kernels make of them widened."""

import numpy as np
import pytest
from filter_layers import SIZES, Size

from distbelief.kernels import (
    ACTIVATIONS,
    local_backward,
    local_backward_to_weights,
    local_bfloat16_backward_to_inputs,
    local_bfloat16_forward,
    local_bfloat16_scratch,
    local_forward,
    local_scratch,
    narrow,
    use_threads,
    widen,
)

# Beside the float32 kernels': filters of which a panel holds few, maps that do not fill the last panel.
LARGE = [Size(21, 20, 16, 3, 13, 20, 20, 1), Size(12, 11, 12, 20, 40, 10, 10, 1)]


@pytest.fixture(params=[1, 3])
def threads(request):
    use_threads(request.param)
    yield request.param
    use_threads(1)


class Layer:
    """Random arrays of one size; `w` are bits, `wide` the same weights in float32. What is to be written is NaN."""

    def __init__(self, size):
        random = np.random.default_rng(size)
        height, width, channels, n, maps, kh, kw, self.stride = size

        def given(*shape):
            return random.standard_normal(shape).astype(np.float32)

        exact = given(*size.positions, maps, kh, kw, channels)
        self.w, self.wide = np.empty(exact.shape, np.uint16), np.empty_like(exact)
        narrow(exact.reshape(-1), self.w.reshape(-1))
        widen(self.w.reshape(-1), self.wide.reshape(-1))
        self.w.flags.writeable = False
        self.b, self.x = given(*size.positions, maps), given(height, width, channels, n)
        self.y, self.dy = (given(*size.positions, maps, n) for _ in range(2))
        self.dw, self.db, self.dx = (np.full_like(array, np.nan) for array in (exact, self.b, self.x))
        self.scratch = np.full(local_bfloat16_scratch(maps, kh, kw, channels), np.nan, np.float32)
        self.rows = np.full(local_scratch(height, width, channels, n, kh), np.nan, np.float32)


@pytest.mark.parametrize("size", SIZES + LARGE, ids=lambda size: "-".join(map(str, size)))
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_all_is_that_of_the_widened_weights_bit_by_bit(threads, size, activation):
    number = ACTIVATIONS[activation]
    layer, other = Layer(size), Layer(size)
    local_bfloat16_forward(layer.w, layer.b, layer.x, layer.stride, number, layer.y, layer.scratch)
    local_forward(other.wide, other.b, other.x, other.stride, number, other.y)
    np.testing.assert_array_equal(layer.y, other.y)

    layer.scratch[:] = np.nan
    local_backward_to_weights(layer.x, layer.y, layer.stride, number, layer.dy, layer.dw, layer.db, layer.rows)
    local_bfloat16_backward_to_inputs(layer.w, layer.dy, layer.stride, layer.dx, layer.scratch)
    made = (other.dy, other.dw, other.db, other.dx, other.rows)
    local_backward(other.wide, other.x, other.y, other.stride, number, *made)
    for name in ("dy", "dw", "db", "dx"):
        np.testing.assert_array_equal(getattr(layer, name), getattr(other, name), err_msg=name)


def test_a_few_filters_at_a_time_are_widened():
    """The largest layer of the paper's 1.7 billion parameters would take 300 MB; a thread's panel is 128 kB."""
    assert local_bfloat16_scratch(36, 10, 10, 36) * 4 <= 2**17
    assert local_bfloat16_scratch(8, 10, 10, 3) * 4 <= 2**17


@pytest.mark.parametrize("channels, maps", [(0, 2), (2, 0)])
def test_no_channels_or_no_maps(channels, maps):
    layer = Layer(Size(5, 5, channels, 3, maps, 3, 3, 1))
    assert layer.scratch.size > 0
    local_bfloat16_forward(layer.w, layer.b, layer.x, layer.stride, 0, layer.y, layer.scratch)
    local_bfloat16_backward_to_inputs(layer.w, layer.dy, layer.stride, layer.dx, layer.scratch)


@pytest.mark.parametrize("name", ["w", "b", "x", "y", "scratch"])
def test_wrong_shapes_are_refused_forwards(name):
    layer = Layer(SIZES[4])
    setattr(layer, name, np.ascontiguousarray(getattr(layer, name)[:-1]))
    with pytest.raises(AssertionError):
        local_bfloat16_forward(layer.w, layer.b, layer.x, layer.stride, 0, layer.y, layer.scratch)


@pytest.mark.parametrize("name", ["w", "dy", "scratch"])
def test_wrong_shapes_are_refused_backwards(name):
    layer = Layer(SIZES[4])
    setattr(layer, name, np.ascontiguousarray(getattr(layer, name)[:-1]))
    with pytest.raises(AssertionError):
        local_bfloat16_backward_to_inputs(layer.w, layer.dy, layer.stride, layer.dx, layer.scratch)
