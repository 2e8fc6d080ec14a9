"""Networks described in scripts: what a description may not be is one line, as it is in a configuration."""

import numpy as np
import pytest

from distbelief.errors import UserError
from distbelief.nn import (
    LOSSES,
    Arena,
    ConvolutionSpec,
    Dense,
    DenseSpec,
    LocalSpec,
    Network,
    NormaliseSpec,
    PoolSpec,
    build,
)
from distbelief.nn.arena import Layout

IMAGE = (8, 8, 1)
LAST = DenseSpec(10)
MUCH = 10**18  # more numbers than there are addresses for


def refusal(call, *arguments, **settings) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (LocalSpec(2, 3, 0), "stride: expected int >= 1, found 0"),
        (ConvolutionSpec(2, 3, -1), "stride: expected int >= 1, found -1"),
        (PoolSpec(2, 0), "stride: expected int >= 1, found 0"),
        (PoolSpec(2, -1), "stride: expected int >= 1, found -1"),
        (LocalSpec(2, 0), "window: expected int >= 1, found 0"),
        (ConvolutionSpec(2, (3, 0)), "window.1: expected int >= 1, found 0"),
        (PoolSpec([3, 3, 3], 1), "window: expected list of length <= 2, found [3, 3, 3]"),
        (NormaliseSpec((3, 3, 3)), "window: expected list of length <= 2, found (3, 3, 3)"),
        (NormaliseSpec(3, 0.0), "floor: expected float > 0.0, found 0.0"),
        (NormaliseSpec(3, float("inf")), "floor: expected a finite number, found inf"),
        (LocalSpec(0, 3), "maps: expected int >= 1, found 0"),
        (LocalSpec(2.5, 3), "maps: expected int, got float, found 2.5"),
        (DenseSpec(0), "outputs: expected int >= 1, found 0"),
        (DenseSpec("ten"), "outputs: expected int, got str, found 'ten'"),
        (DenseSpec(3, "gelu"), "activation: expected one of: linear, sigmoid, tanh, relu, found 'gelu'"),
        (PoolSpec(2, 2, "l1"), "function: expected one of: l2, max, average, found 'l1'"),
    ],
)
def test_a_layer_that_cannot_be_is_named_by_position_and_key(spec, text):
    assert refusal(build, [DenseSpec(64), spec], 64).startswith(f"network.layers.1.{text}")
    assert refusal(build, [spec, LAST], IMAGE).startswith(f"network.layers.0.{text}")


def test_what_is_wrong_with_the_whole_is_named():
    assert refusal(build, [], 4) == "network.layers: expected list of length >= 1, found []"
    assert refusal(build, [LAST], (8, 8)) == "network.inputs: expected list of length >= 3, found (8, 8)"
    assert refusal(build, [LAST], 0) == "network.inputs: expected int >= 1, found 0"
    said = refusal(build, [LAST], 4, "hinge")
    assert said == f"network.loss: expected one of: {', '.join(LOSSES)}, found 'hinge'"
    assert refusal(build, [LAST, "dense"], 4).startswith("network.layers.1: expected table, got str, found 'dense'")


def test_numbers_of_numpy_are_numbers():
    layers = build([PoolSpec(np.int64(2)), DenseSpec(np.int32(3))], tuple(np.array(IMAGE)))
    assert [layer.shape for layer in layers] == [(4, 4, 1), (3,)]


@pytest.mark.parametrize("size", [1 << 45, 1 << 63, 10**30])
def test_sizes_beyond_all_memory_are_named_by_position(size):
    above = f"of shape [{size}], expected at most 2^44 numbers"
    assert refusal(build, [DenseSpec(3), DenseSpec(size), LAST], 4) == f"network.layers.1 (dense): outputs {above}"
    assert refusal(build, [LAST], size) == f"network.inputs {above}"
    said = refusal(build, [ConvolutionSpec(size >> 3, 8), LAST], IMAGE)
    assert said.startswith("network.layers.0 (convolution): ") and "expected at most 2^44 numbers" in said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_that_there_is_no_memory_for_are_named_by_position(dtype):
    layers = build([DenseSpec(2), DenseSpec(50), LAST], 2)
    said = refusal(Network, layers, MUCH, dtype)
    assert said == f"network.layers.1 (dense1): outputs [50, {MUCH}]: more than there is memory for"


def test_parameters_that_there_is_no_memory_for_are_named():
    layout = Layout({"dense0.b": (3,), "dense1.w": (MUCH, 2)})
    said = refusal(Arena, layout)
    assert said.startswith(f"dense1.w: shape [{MUCH}, 2], of {2 * MUCH + 3:,} parameters in all: more than there is")


@pytest.mark.parametrize("dtype", ["float16", np.float16, "int32", "nonsense", object()])
def test_types_that_kernels_do_not_have_are_refused(dtype):
    said = refusal(Network, [Dense("d", 3, 2)], 4, dtype)
    assert said.startswith("network.dtype: ") and said.endswith(", expected one of: float32, float64, bfloat16")


def test_a_network_of_no_layers_is_refused():
    assert refusal(Network, [], 4) == "network.layers: none, expected at least one"
