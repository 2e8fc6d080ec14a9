"""Gradients that are taken in while they are computed: what becomes of them is what adding them up afterwards makes."""

from types import SimpleNamespace

import numpy as np
import pytest

from distbelief.kernels import narrow, use_kernels16
from distbelief.nn import Accrual, Arena, Convolution, Dense, Network, accrual

RATE = 0.125


@pytest.fixture(params=["afterwards", "at once"])
def how(request, monkeypatch):
    """When dense layers take in their gradients; by themselves it depends on their sizes, and on the BLAS."""
    monkeypatch.setattr(Dense, "accrues", lambda layer, n: request.param == "at once")
    return request.param


def a_network(dtype=np.float64, penalty=0.0):
    """The first dense layer is so large that what is looked at for its bounds is less; of the others it is not."""
    layers = [
        Convolution("conv0", (6, 6, 1), 4, 3, 1, "tanh"),
        Dense("dense1", (4, 4, 4), 40, "sigmoid"),
        Dense("dense2", 40, 3),
    ]
    return Network(layers, 8, dtype, penalty=penalty)


def a_batch(seed, n=8, dtype=np.float64):
    random = np.random.default_rng(seed)
    return SimpleNamespace(x_in=random.standard_normal((36, n)).astype(dtype), labels=random.integers(0, 3, n))


def arenas(network, count):
    made = [Arena(network.layout, network.dtype) for _ in range(count)]
    for arena in made[1:]:
        arena.flat[:] = np.nan  # to be overwritten, or not looked at
    network.initialise(made[0], seed=1)
    return made


@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 2e-6)])
def test_gradients_accrue_and_parameters_step(how, penalty, dtype, tolerance):
    network = a_network(dtype, penalty)
    parameters, accrued, room = arenas(network, 3)
    true, gradient = arenas(network, 2)
    total = np.zeros_like(true.flat)
    for seed in range(3):
        batch = a_batch(seed, dtype=dtype)
        expected = network.gradient(true, batch, gradient)
        total += gradient.flat
        true.flat[:] -= RATE * gradient.flat
        loss = network.gradient(parameters, batch, room, accrual=Accrual(accrued, fresh=seed == 0, rate=RATE))
        assert loss == pytest.approx(expected, rel=10 * tolerance)
    np.testing.assert_allclose(accrued.flat, total, rtol=0, atol=tolerance)
    np.testing.assert_allclose(parameters.flat, true.flat, rtol=0, atol=tolerance)


def test_means_of_batches_of_any_size_become_a_sum(how):
    """As Sandblaster adds them up: the gradient of the sum of the losses over all examples, at one point."""
    network = a_network()
    parameters, accrued, room, gradient = arenas(network, 4)
    before, total = parameters.flat.copy(), np.zeros_like(parameters.flat)
    for seed, n in enumerate([8, 5, 1]):
        network.gradient(parameters, a_batch(seed, n), gradient)
        total += n * gradient.flat
        network.gradient(parameters, a_batch(seed, n), room, accrual=Accrual(accrued, fresh=seed == 0, weight=n))
    np.testing.assert_allclose(accrued.flat, total, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(parameters.flat, before)


def test_the_large_layer_takes_in_its_gradients_itself(how):
    network = a_network()
    parameters, accrued, room = arenas(network, 3)
    accrued.flat[:] = 0
    network.gradient(parameters, a_batch(0), room, accrual=Accrual(accrued, fresh=False, rate=RATE))
    assert np.isfinite(accrued.flat).all()
    written = {name for name in room if np.isfinite(room[name]).any()}
    assert written == set(room) - ({"dense1.w", "dense1.b"} if how == "at once" else set())


@pytest.mark.parametrize("fresh", [True, False])
def test_a_layers_gradients_have_been_taken_in_when_it_is_said_that_they_are_produced(how, fresh):
    network = a_network()
    parameters, accrued, room = arenas(network, 3)
    accrued.flat[:] = 0
    network.gradient(parameters, a_batch(0), room, accrual=Accrual(accrued, fresh))
    end, known = Arena(network.layout, network.dtype, accrued.flat.copy()), {}
    accrued.flat[:] = 0

    def produced(*names, finite):
        for name in names:
            np.testing.assert_array_equal(accrued[name], end[name])
            known[name] = finite

    network.gradient(parameters, a_batch(0), room, None, produced, Accrual(accrued, fresh))
    assert known == dict.fromkeys(network.layout.shapes, True)  # by bounds, or as taking in looks at each number


@pytest.mark.parametrize("fresh", [True, False])
def test_a_gradient_that_is_not_finite_is_told_of(how, fresh):
    """The errors of the layer below overflow, the loss does not."""
    network = a_network(np.float32)
    parameters, accrued, room = arenas(network, 3)
    accrued.flat[:] = 0
    parameters["dense1.w"] = np.full_like(parameters["dense1.w"], 3e38)
    parameters["dense1.w"][:, ::2] *= -1
    parameters["conv0.w"] = np.zeros_like(parameters["conv0.w"])
    parameters["dense2.w"] = np.full_like(parameters["dense2.w"], 3e38) * np.array([[1], [-1], [0]], np.float32)
    parameters["dense1.b"] = np.full(40, -80, np.float32)
    known = {}

    def produced(*names, finite):
        known.update(dict.fromkeys(names, finite))

    loss = network.gradient(parameters, a_batch(0, dtype=np.float32), room, None, produced, Accrual(accrued, fresh))
    assert np.isfinite(loss)
    for name, finite in known.items():
        assert not finite or np.isfinite(accrued[name]).all()
    assert not np.isfinite(accrued.flat).all()


def test_without_a_finite_loss_nothing_becomes_of_gradients(how):
    network = a_network()
    parameters, accrued, room = arenas(network, 3)
    accrued.flat[:] = 1
    before, batch = parameters.flat.copy(), a_batch(0)
    batch.x_in[3, 4] = np.inf
    batch.x_in[4, 4] = -np.inf
    said = []
    loss = network.gradient(
        parameters, batch, room, None, lambda *names, finite: said.append(names), Accrual(accrued, False, rate=RATE)
    )
    assert not np.isfinite(loss) and not said
    np.testing.assert_array_equal(parameters.flat, before)
    np.testing.assert_array_equal(accrued.flat, np.ones_like(before))


@pytest.fixture(params=["amx", "avx512", "others"])
def way16(request):
    """By which way products of bfloat16 are computed."""
    if request.param != "others" and not use_kernels16(request.param):
        pytest.skip(f"this CPU has no {request.param} for bfloat16")
    yield request.param
    use_kernels16()


def stepped(values, gradient):
    """values - RATE gradient; of what is held in bfloat16, rounded."""
    wide = values if values.dtype == np.float32 else (values.astype(np.uint32) << 16).view(np.float32)
    wide = wide - np.float32(RATE) * gradient
    if values.dtype == np.float32:
        return wide
    out = np.empty_like(values)
    narrow(wide, out)
    return out


@pytest.mark.parametrize("held", [None, "bfloat16"])
@pytest.mark.parametrize("rate", [0.0, RATE])
def test_layers_that_compute_in_bfloat16_take_their_gradients_in_as_well(way16, monkeypatch, held, rate):
    """Masters step, or the weights themselves that are held in bfloat16."""
    monkeypatch.setattr(accrual, "BLOCK", 1000)
    layers = [Dense("dense0", 36, 70, "sigmoid"), Dense("dense1", 70, 3)]
    network = Network(layers, 4, "bfloat16", held=held)
    parameters, true = (Arena(network.layout, network.held) for _ in range(2))
    accrued, room, gradient = (Arena(network.layout, np.float32) for _ in range(3))
    for each in (parameters, true):
        network.initialise(each, seed=1)
    room.flat[:], total = np.nan, np.zeros(network.layout.size)
    for seed in range(2):
        batch = a_batch(seed, 4, np.float32)
        network.gradient(true, batch, gradient)
        total += gradient.flat
        if rate:
            true.flat[:] = stepped(true.flat, gradient.flat)
        network.gradient(parameters, batch, room, accrual=Accrual(accrued, fresh=seed == 0, rate=rate))
    np.testing.assert_allclose(accrued.flat, total, rtol=0, atol=1e-3 if held else 1e-6)
    if held:  # a product's or a sum's last bit may decide where a number is rounded to
        assert np.abs(parameters.flat.astype(int) - true.flat.astype(int)).max() <= 1
        assert (parameters.flat == true.flat).mean() > 0.99
    else:
        np.testing.assert_allclose(parameters.flat, true.flat, rtol=0, atol=1e-6)
    # The first layer's bounds are known, and its gradients written nowhere.
    assert np.isfinite(room["dense0.w"]).any() == (way16 == "others")
