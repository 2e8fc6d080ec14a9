"""Gradients of networks against plain NumPy written here, and against finite differences."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from distbelief.errors import UserError
from distbelief.nn import Arena, Dense, Network, OneVsAllLogistic, SquaredError

WIDTHS = [6, 5, 7, 4]
ACTIVATIONS = ["tanh", "relu", "linear"]


def a_network(activations=ACTIVATIONS, batch=9, dtype=np.float64, widths=WIDTHS):
    layers = [Dense(f"dense{i}", widths[i], widths[i + 1], name) for i, name in enumerate(activations)]
    return Network(layers, batch, dtype)


def some_parameters(network):
    parameters = Arena(network.layout, network.dtype)
    parameters.flat[:] = np.random.default_rng(1).uniform(-0.7, 0.7, network.layout.size)
    return parameters


def a_batch(n, dtype=np.float64, features=WIDTHS[0], classes=WIDTHS[-1]):
    random = np.random.default_rng(2)
    x = np.ascontiguousarray(random.standard_normal((features, n)).astype(dtype))
    return SimpleNamespace(x_in=x, labels=random.integers(0, classes, n))


def by_hand(parameters, activations, batch):
    """Loss, gradients by name, and scores: example-first, in float64, as a textbook has it."""
    forward = {
        "linear": lambda z: z,
        "relu": lambda z: z * (z > 0),
        "tanh": np.tanh,
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    }
    slope = {
        "linear": lambda a: 1.0,
        "relu": lambda a: 1.0 * (a > 0),
        "tanh": lambda a: 1 - a**2,
        "sigmoid": lambda a: a * (1 - a),
    }
    a = [batch.x_in.T.astype(np.float64)]
    for i, name in enumerate(activations):
        w, b = (parameters[f"dense{i}.{kind}"].astype(np.float64) for kind in "wb")
        a.append(forward[name](a[-1] @ w.T + b))
    n = len(batch.labels)
    chances = np.exp(a[-1]) / np.exp(a[-1]).sum(axis=1, keepdims=True)
    losses = -np.log(chances[np.arange(n), batch.labels])
    error = (chances - np.eye(chances.shape[1])[batch.labels]) / n
    gradients = {}
    for i in reversed(range(len(activations))):
        delta = error * slope[activations[i]](a[i + 1])
        gradients[f"dense{i}.w"], gradients[f"dense{i}.b"] = delta.T @ a[i], delta.sum(axis=0)
        error = delta @ parameters[f"dense{i}.w"].astype(np.float64)
    return losses.mean(), gradients, a[-1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
@pytest.mark.parametrize(
    "activations", [["tanh", "relu", "linear"], ["relu", "sigmoid", "tanh"], ["sigmoid", "linear", "relu"]]
)
def test_gradient_is_that_of_plain_numpy(activations, dtype, tolerance):
    network, batch = a_network(activations, dtype=dtype), a_batch(9, dtype)
    parameters, gradient = some_parameters(network), Arena(network.layout, dtype)
    gradient.flat[:] = np.nan
    before = parameters.flat.copy()
    loss = network.gradient(parameters, batch, gradient)
    true_loss, true, _ = by_hand(parameters, activations, batch)
    assert loss == pytest.approx(true_loss, rel=tolerance)
    assert set(gradient) == set(true)
    for name in true:
        np.testing.assert_allclose(gradient[name], true[name], rtol=0, atol=tolerance, err_msg=name)
    np.testing.assert_array_equal(parameters.flat, before)


@pytest.mark.parametrize("activations", [["tanh", "relu", "linear"], ["sigmoid", "tanh", "linear"], ["linear"] * 3])
def test_gradient_is_the_derivative_of_the_loss(activations):
    network, batch = a_network(activations), a_batch(9)
    parameters, gradient, unused = some_parameters(network), Arena(network.layout, float), Arena(network.layout, float)
    network.gradient(parameters, batch, gradient)
    step, differences = 1e-5, np.empty(network.layout.size)
    for i, middle in enumerate(parameters.flat.copy()):
        ends = []
        for sign in (1, -1):
            parameters.flat[i] = middle + sign * step
            ends.append(network.gradient(parameters, batch, unused))
        parameters.flat[i] = middle
        differences[i] = (ends[0] - ends[1]) / (2 * step)
    assert np.linalg.norm(gradient.flat - differences) < 1e-6 * np.linalg.norm(differences)


def test_score_is_the_sum_of_losses_and_the_number_of_right_answers():
    network, batch = a_network(), a_batch(9)
    parameters = some_parameters(network)
    loss, right = network.score(parameters, batch)
    true_loss, _, scores = by_hand(parameters, ACTIVATIONS, batch)
    assert loss == pytest.approx(9 * true_loss)
    assert right == (scores.argmax(axis=1) == batch.labels).sum()
    assert 0 < right < 9  # or the line above says little


def test_a_smaller_batch_after_a_larger_one():
    """Buffers still hold the larger batch; none of it may leak into the smaller one."""
    network = a_network()
    parameters, gradient = some_parameters(network), Arena(network.layout, float)
    network.gradient(parameters, a_batch(9), gradient)
    for n in (4, 1):
        batch = a_batch(n)
        loss = network.gradient(parameters, batch, gradient)
        true_loss, true, scores = by_hand(parameters, ACTIVATIONS, batch)
        assert loss == pytest.approx(true_loss)
        for name in true:
            np.testing.assert_allclose(gradient[name], true[name], rtol=0, atol=1e-13, err_msg=name)
        assert network.score(parameters, batch)[1] == (scores.argmax(axis=1) == batch.labels).sum()


def test_a_network_of_one_layer():
    network, batch = a_network(["linear"], widths=[6, 4]), a_batch(9)
    parameters, gradient = some_parameters(network), Arena(network.layout, float)
    network.gradient(parameters, batch, gradient)
    true = by_hand(parameters, ["linear"], batch)[1]
    np.testing.assert_allclose(gradient["dense0.w"], true["dense0.w"], rtol=0, atol=1e-13)


def test_a_step_down_the_gradient_lowers_the_loss():
    network, batch = a_network(), a_batch(9)
    parameters, gradient = some_parameters(network), Arena(network.layout, float)
    losses = []
    for _ in range(50):
        losses.append(network.gradient(parameters, batch, gradient))
        parameters.flat -= 0.1 * gradient.flat
    assert all(later < earlier for earlier, later in zip(losses, losses[1:], strict=False))


@pytest.mark.parametrize("call", ["gradient", "score"])
def test_a_batch_larger_than_the_buffers_is_refused(call):
    network = a_network(batch=9)
    arguments = [some_parameters(network), a_batch(10)]
    if call == "gradient":
        arguments.append(Arena(network.layout, float))
    with pytest.raises(ValueError, match="a batch of 10 examples, the network was built for up to 9"):
        getattr(network, call)(*arguments)


def test_a_batch_of_another_width_is_refused():
    network = a_network()
    with pytest.raises(ValueError, match="^examples of 7 numbers, the network takes 6$"):
        network.score(some_parameters(network), a_batch(3, features=7))


@pytest.mark.parametrize("batch", [0, -3, 2.5, "9", None])
def test_a_network_for_batches_of_nothing_is_refused(batch):
    with pytest.raises(UserError, match=f"^batch = {batch!r}, expected an integer of 1 or more"):
        a_network(batch=batch)


def test_a_loss_may_be_given_by_its_name():
    layers = [Dense("only", 3, 1)]
    assert Network(layers, batch=np.int64(1), loss="squared").classes == 1
    with pytest.raises(UserError, match="^loss = 'hinge', expected one of softmax, logistic, squared$"):
        Network(layers, batch=1, loss="hinge")


def test_layers_that_do_not_chain_are_refused():
    with pytest.raises(UserError, match=r"^network\.layers\.1 \(above\): takes \[5\], found \[4\] below$"):
        Network([Dense("below", 3, 4), Dense("above", 5, 2)], batch=1)


def test_outputs_that_do_not_fit_the_loss_are_refused():
    words = r"^network\.layers\.1 \(above\): outputs of shape \[1\] under a loss over classes, expected \[classes\]"
    for loss in (None, OneVsAllLogistic()):
        with pytest.raises(UserError, match=words):
            Network([Dense("below", 3, 4), Dense("above", 4, 1)], batch=1, loss=loss)
    assert Network([Dense("only", 3, 1)], batch=1, loss=SquaredError()).classes == 1


def test_the_layout_names_every_tensor_from_the_inputs_up():
    network = a_network()
    assert network.layout.shapes == {
        "dense0.w": (5, 6),
        "dense0.b": (5,),
        "dense1.w": (7, 5),
        "dense1.b": (7,),
        "dense2.w": (4, 7),
        "dense2.b": (4,),
    }
    assert list(network.layout.shapes) == [f"dense{i}.{kind}" for i in range(3) for kind in "wb"]
    assert (network.inputs, network.classes) == (6, 4)


def test_flops_count_a_multiplication_and_an_addition_for_every_weight_and_example():
    assert a_network().flops(10) == 2 * 10 * (6 * 5 + 5 * 7 + 7 * 4)


def test_training_steps_allocate_nothing_big():
    """Activations of this network fill 400 kB, its gradients 240 kB: a copy of any of them would show."""
    network = a_network(batch=100, dtype=np.float32, widths=[200, 200, 100, 10])
    batch = a_batch(100, np.float32, features=200, classes=10)
    parameters, gradient = some_parameters(network), Arena(network.layout)
    network.gradient(parameters, batch, gradient)
    tracemalloc.start()
    try:
        for _ in range(3):
            network.gradient(parameters, batch, gradient)
            network.score(parameters, batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8192


def hooked(network, parameters, batch, gradient):
    """What a gradient reports, in order, and whether the gradients that were produced were final by then."""
    told, final = [], {}

    def produced(*names, finite):
        told.append(("produced", names))
        final.update({name: gradient[name].copy() for name in names})

    network.gradient(parameters, batch, gradient, lambda *names: told.append(("needed", names)), produced)
    assert all(np.array_equal(gradient[name], values) for name, values in final.items())
    return told


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_it_tells_of_tensors_that_are_needed_and_gradients_that_are_final(penalty):
    layers = [Dense("a", 6, 5, "tanh"), Dense("b", 5, 4)]
    network = Network(layers, 9, np.float64, penalty=penalty)
    parameters = some_parameters(network)
    told = hooked(network, parameters, a_batch(9), Arena(network.layout, np.float64))
    names = [("a.w", "a.b"), ("b.w", "b.b")]
    assert told == [("needed", n) for n in names] + [("produced", n) for n in reversed(names)]


def test_parameters_may_come_when_they_are_needed():
    network = a_network()
    parameters, gradient, late = some_parameters(network), *(Arena(network.layout, np.float64) for _ in range(2))
    expected = Arena(network.layout, np.float64)
    loss = network.gradient(parameters, a_batch(9), expected)
    late.flat[:] = np.nan

    def needed(*names):
        for name in names:
            late[name] = parameters[name]

    assert network.gradient(late, a_batch(9), gradient, needed, lambda *names, finite: None) == loss
    assert np.array_equal(gradient.flat, expected.flat)


def test_of_a_loss_that_is_not_finite_nothing_is_produced():
    network = a_network()
    parameters = some_parameters(network)
    parameters["dense2.b"][0] = np.inf
    with np.errstate(invalid="ignore"):
        told = hooked(network, parameters, a_batch(9), Arena(network.layout, np.float64))
    assert {kind for kind, _ in told} == {"needed"}
