"""Sums of gradients, by models that take them in themselves and by others."""

from types import SimpleNamespace

import numpy as np
import pytest

from distbelief.algorithms.model import accruing, takes_accruals
from distbelief.nn import Accrual, Arena, Dense, Network


def a_network():
    return Network([Dense("dense0", 12, 9, "tanh"), Dense("dense1", 9, 3)], 8, np.float64)


def plain(network):
    """The same, which knows nothing of accruals."""
    return SimpleNamespace(gradient=lambda parameters, batch, gradient: network.gradient(parameters, batch, gradient))


@pytest.mark.parametrize("model", [a_network(), plain(a_network())], ids=["network", "plain"])
def test_whoever_adds_them_up(model):
    network, random = a_network(), np.random.default_rng(0)
    parameters, accrued, room, gradient = (Arena(network.layout, np.float64) for _ in range(4))
    network.initialise(parameters, seed=1)
    accrued.flat[:] = np.nan
    before, total, accrue = parameters.flat.copy(), np.zeros(network.layout.size), accruing(model)
    for first, n in [(True, 8), (False, 3)]:
        batch = SimpleNamespace(x_in=random.standard_normal((12, n)), labels=random.integers(0, 3, n))
        loss = network.gradient(parameters, batch, gradient)
        total += n * gradient.flat
        assert accrue(parameters, batch, room, Accrual(accrued, first, weight=n)) == loss
    np.testing.assert_allclose(accrued.flat, total, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(parameters.flat, before)


def test_only_a_model_with_hooks_takes_accruals():
    assert takes_accruals(a_network().gradient) and not takes_accruals(plain(a_network()).gradient)
    assert not takes_accruals(lambda parameters, batch, gradient, accrual=None: 0.0)
