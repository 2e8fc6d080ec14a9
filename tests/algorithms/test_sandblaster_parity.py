"""Sandblaster's L-BFGS against SciPy's on a convex problem, softmax regression in float64; bench/parity.py has more."""

import numpy as np
import pytest
from algorithms.digits import Digits, Heard
from scipy.optimize import minimize
from scipy.special import logsumexp

from distbelief.algorithms.roles import Roles
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.sandblaster.training import train, train_alone
from distbelief.algorithms.settings import Evaluate
from distbelief.comm.sim import Cluster
from distbelief.launch.roles import assign
from distbelief.nn import Arena, Dense, Network
from distbelief.optim import LBFGS, StopRules
from distbelief.partition import Cut

PENALTY = 0.05
SETTINGS = Sandblaster(
    portion=100, ship_every=2, method=LBFGS(), stop=StopRules(gradient_norm=1e-5, relative_decrease=None)
)


class Regression(Digits):
    """A network of one layer, with a penalty on its weights: one minimum, but for what the biases have in common."""

    layers = (Dense("dense0", 64, 10),)

    def __init__(self):
        super().__init__(100, np.float64)

    def model(self) -> Network:
        return Network(self.layers, 100, np.float64, penalty=PENALTY)

    def cut(self, partitions: int) -> Cut:
        return Cut(self.layers, partitions, 100, np.float64, penalty=PENALTY)

    def test_examples(self):
        return None


PROBLEM = Regression()


def trained(roles: Roles | None) -> tuple[list[float], np.ndarray]:
    """The loss of each evaluation, and the parameters at the end."""
    heard = Heard()
    if roles is None:
        outcome = train_alone(PROBLEM, SETTINGS, Evaluate(), heard)
    else:
        cluster = Cluster(1 + max(map(max, [*roles.ranks, roles.shards])), flops=1e9, jitter=0.2)
        run = cluster.run(lambda endpoint: train(endpoint, roles, PROBLEM, SETTINGS, Evaluate(), heard))
        outcome = run[0]
    assert outcome.reason == "gradient norm"
    return [each.loss for each in heard.batch_evaluations], outcome.parameters.flat


@pytest.fixture(scope="module")
def alone():
    return trained(None)


@pytest.fixture(scope="module")
def scipy():
    """What SciPy makes of the same objective, by NumPy over all examples at once."""
    examples = PROBLEM.examples()
    batches = [(batch.x_in.T.copy(), batch.labels.copy()) for batch in examples.read(np.arange(len(examples)))]
    x_ni, labels_n = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    one_hot_no = np.eye(10)[labels_n]

    def objective(parameters):
        w_oi, b_o = parameters[:640].reshape(10, 64), parameters[640:]
        z_no = x_ni @ w_oi.T + b_o
        log_p_no = z_no - logsumexp(z_no, axis=1, keepdims=True)
        dz_no = (np.exp(log_p_no) - one_hot_no) / len(x_ni)
        gradient = [dz_no.T @ x_ni + PENALTY * w_oi, dz_no.sum(axis=0)]
        loss = -(log_p_no * one_hot_no).sum() / len(x_ni) + PENALTY / 2 * np.sum(w_oi**2)
        return loss, np.concatenate([part.ravel() for part in gradient])

    model = PROBLEM.model()
    model.initialise(start := Arena(model.layout, model.dtype), PROBLEM.seed)
    return minimize(objective, start.flat, jac=True, method="L-BFGS-B", options={"gtol": 1e-6, "ftol": 1e-14})


def test_the_minimum_is_scipys_and_takes_as_many_evaluations(alone, scipy):
    losses, parameters = alone
    assert abs(losses[-1] - scipy.fun) <= 1e-6 * scipy.fun
    assert len(losses) <= 1.25 * scipy.nfev
    np.testing.assert_allclose(parameters, scipy.x, atol=1e-3)


@pytest.mark.parametrize(
    "roles",
    [assign(4, 1), assign(5, 3), assign(3, 2, place="beside", coordinator="apart"), assign(5, 1, partitions=2)],
    ids=["3 replicas", "3 shards", "beside", "cut"],
)
def test_shards_and_replicas_change_nothing_but_rounding(alone, scipy, roles):
    losses, parameters = trained(roles)
    np.testing.assert_allclose(losses[:12], alone[0][:12], rtol=1e-10)  # then rounding grows from step to step
    assert abs(len(losses) - len(alone[0])) <= 0.1 * len(alone[0])
    assert losses[-1] == pytest.approx(alone[0][-1], rel=1e-8)
    assert abs(losses[-1] - scipy.fun) <= 1e-6 * scipy.fun
    np.testing.assert_allclose(parameters, alone[1], atol=1e-3)
