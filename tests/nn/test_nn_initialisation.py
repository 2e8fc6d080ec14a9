"""How networks begin: the same for a seed wherever they are built."""

import math

import numpy as np
import pytest

from distbelief.nn import Arena, Dense, LocallyConnected, Network


def begin(layers, seed=1, dtype=np.float64):
    network = Network(layers, batch=1, dtype=dtype)
    parameters = Arena(network.layout, dtype)
    parameters.flat[:] = np.nan
    network.initialise(parameters, seed)
    return parameters


def two_layers(names=("dense0", "dense1"), activation="relu"):
    return [Dense(names[0], 30, 40, activation), Dense(names[1], 40, 10)]


def test_values_never_change():
    """Written down once: runs of today must be repeatable with any later NumPy, on any machine."""
    parameters = begin(two_layers())
    golden = {
        "dense0.w": [0.44405278471217263, 0.36891511148006356, -0.1385249632239948, 0.3714540042123584],
        "dense1.w": [-0.2953623136310104, -0.0586585888640628, -0.02638441661126334, 0.27838588813949866],
    }
    for name, values in golden.items():
        np.testing.assert_allclose(parameters[name].reshape(-1)[:4], values, rtol=1e-15, err_msg=name)


def test_float32_begins_where_float64_does():
    single, double = begin(two_layers(), dtype=np.float32), begin(two_layers())
    assert single.flat.dtype == np.float32
    np.testing.assert_array_equal(single.flat, double.flat.astype(np.float32))


def test_a_seed_names_one_beginning():
    first, same, other = (begin(two_layers(), seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.flat, same.flat)
    assert not np.isclose(first["dense0.w"], other["dense0.w"], rtol=1e-3).all(axis=1).any()


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**63, 2**100])
def test_any_seed_that_is_not_negative_will_do(seed):
    assert np.isfinite(begin(two_layers(), seed).flat).all()


def test_a_tensor_has_a_stream_of_its_own_by_name():
    """Whatever else the network has, and wherever the tensor stands in it."""
    two, renamed = begin(two_layers()), begin(two_layers(("dense0", "other")))
    three = begin([Dense("first", 50, 30), *two_layers()])
    np.testing.assert_array_equal(two["dense0.w"], renamed["dense0.w"])
    np.testing.assert_array_equal(two["dense0.w"], three["dense0.w"])
    np.testing.assert_array_equal(two["dense1.w"], three["dense1.w"])
    assert (two["dense1.w"] != renamed["other.w"]).all()


def test_tensors_of_one_shape_begin_differently():
    parameters = begin([Dense("dense0", 20, 20), Dense("dense1", 20, 20)])
    correlation = np.corrcoef(parameters["dense0.w"].ravel(), parameters["dense1.w"].ravel())[0, 1]
    assert abs(correlation) < 4 / math.sqrt(400)


@pytest.mark.parametrize(
    ("activation", "spread"),
    [
        ("relu", math.sqrt(6 / 300)),
        ("linear", math.sqrt(6 / 500)),
        ("tanh", math.sqrt(6 / 500)),
        ("sigmoid", 4 * math.sqrt(6 / 500)),
    ],
)
def test_weights_are_uniform_within_their_spread_and_biases_zero(activation, spread):
    parameters = begin([Dense("dense0", 300, 200, activation)])
    w = parameters["dense0.w"].ravel()
    assert np.abs(w).max() <= spread
    # 16 equal bins of 60,000 numbers: chi-square, 15 degrees of freedom, 0.1 % point 37.7.
    counts, _ = np.histogram(w, bins=16, range=(-spread, spread))
    assert ((counts - w.size / 16) ** 2 / (w.size / 16)).sum() < 37.7
    assert not parameters["dense0.b"].any()


def test_relu_layers_keep_the_size_of_what_flows_through_them():
    """He et al. 2015: ten layers neither die nor explode."""
    layers = [Dense(f"dense{i}", 200, 200, "relu") for i in range(10)]
    parameters = begin(layers)
    x = np.random.default_rng(0).standard_normal((200, 50))
    for layer in layers:
        y = np.empty_like(x)
        layer.forward(parameters, x, y, np.empty(0))
        x = y
    assert 0.2 < np.sqrt((x**2).mean()) < 5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_interval_of_the_beginning_is_drawn_without_the_rest(dtype):
    network = Network([LocallyConnected("local0", (9, 8, 2), 3, 4), Dense("dense1", (6, 5, 3), 11)], 1, dtype)
    whole = Arena(network.layout, dtype)
    network.initialise(whole, seed=5)
    random = np.random.default_rng(0)
    for _ in range(20):
        start, stop = sorted(random.integers(0, network.layout.size + 1, 2))
        part = np.full(stop - start, np.nan, dtype)
        network.initialise_interval(part, 5, start)
        np.testing.assert_array_equal(part, whole.flat[start:stop])
