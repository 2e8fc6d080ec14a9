"""Gradients that are said to be finite without a look at them: they are, whatever the inputs and errors."""

import numpy as np
import pytest

from distbelief.data import Batch
from distbelief.nn import Arena, Convolution, Dense, LocallyConnected, Network, Normalise, Pool
from distbelief.nn.layers import DenseBfloat16

LAYERS = {
    "dense": lambda activation: Dense("one", 60, 50, activation),
    "dense bfloat16": lambda activation: DenseBfloat16(Dense("one", 60, 50, activation)),
    "local": lambda activation: LocallyConnected("one", (8, 8, 3), 4, 5, 1, activation),
}


def backward(layer, scale_x, scale_dy, n=4, dtype=np.float32, stray=None):
    """Whether the layer says that its gradients are finite, and whether they are. `stray`: among its outputs."""
    random = np.random.default_rng(7)
    shapes = layer.shapes
    parameters = {name: random.uniform(-0.1, 0.1, shape).astype(dtype) for name, shape in shapes.items()}
    if isinstance(layer, DenseBfloat16):
        parameters[layer.w] = (parameters[layer.w].view(np.uint32) >> 16).astype(np.uint16)
    gradient = {name: np.empty(shape, dtype) for name, shape in shapes.items()}
    x = (scale_x * random.uniform(0.5, 1, (*layer.below, n))).astype(dtype)
    dy = (scale_dy * random.uniform(0.5, 1, (*layer.shape, n))).astype(dtype)
    y, dx, scratch = np.empty_like(dy), np.empty_like(x), np.empty(layer.scratch(n), dtype)
    layer.forward(parameters, x, y, scratch)
    if stray is not None:
        y.reshape(-1)[5] = stray
    said = layer.bounded(x, y, dy)
    layer.backward(parameters, x, y, dy, gradient, dx, scratch)
    return said, all(np.isfinite(array).all() for array in gradient.values())


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("activation", ["linear", "sigmoid", "tanh", "relu"])
def test_what_is_small_is_known_to_be_finite(kind, activation):
    assert backward(LAYERS[kind](activation), 1.0, 1.0) == (True, True)
    assert backward(LAYERS[kind](activation), 1e15, 1e15) == (True, True)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scales", [(1e20, 1e20), (1e-30, 3e38), (3e38, 1e-30), (np.inf, 1), (1, np.inf), (np.nan, 1)])
def test_nothing_is_said_of_what_may_overflow(kind, scales):
    assert not backward(LAYERS[kind]("linear"), *scales)[0]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_sum_that_overflows_is_never_said_to_be_finite(kind):
    """The products are finite, and their sum is not."""
    assert backward(LAYERS[kind]("linear"), 1.3e19, 1.3e19, n=8) == (False, False)


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_that_are_no_numbers_tell_nothing_of_errors(kind):
    assert backward(LAYERS[kind]("tanh"), 1.0, 1.0, stray=np.nan) == (False, False)


def test_float64_has_bounds_of_its_own():
    layer = LAYERS["dense"]("linear")
    assert backward(layer, 1e100, 1e100, dtype=np.float64) == (True, True)
    assert backward(layer, 1e160, 1e160, dtype=np.float64) == (False, False)


def test_as_many_examples_as_weights_are_not_looked_at():
    assert backward(Dense("one", 6, 5), 1.0, 1.0, n=50) == (False, True)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_a_network_says_it_of_its_large_layers_without_a_penalty(penalty):
    layers = [
        LocallyConnected("local", (9, 9, 3), 8, 4),
        Pool("pool", (6, 6, 8), 2),
        Normalise("normal", (3, 3, 8), 3),
        Convolution("tied", (3, 3, 8), 4, 2),
        Dense("top", (2, 2, 4), 50),
    ]
    network = Network(layers, batch=2, penalty=penalty)
    parameters, gradient = Arena(network.layout), Arena(network.layout)
    network.initialise(parameters, 1)
    batch = Batch(np.ones((network.inputs, 2), np.float32), np.array([3, 4]))
    said = {}

    def produced(*names, finite):
        said.update(dict.fromkeys(names, finite))

    network.gradient(parameters, batch, gradient, produced=produced)
    assert set(said) == set(gradient)
    assert {name for name in said if said[name]} == (set() if penalty else {"top.w", "top.b", "local.w", "local.b"})
