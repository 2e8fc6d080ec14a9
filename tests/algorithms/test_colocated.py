"""Shards and the coordinator beside replicas, on the same ranks: the same results, and nobody waits in a circle."""

import numpy as np
import pytest
from algorithms.digits import Digits, Heard, train_in_simulator, train_serially

from distbelief.algorithms import downpour
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.endpoint import DeadlineExpired
from distbelief.comm.sim import Cluster
from distbelief.launch.roles import assign
from distbelief.optim import Adagrad, FixedRate
from distbelief.server import Bounded, Server

# One replica: everything on one rank; the coordinator apart; one shard beside the replica, one apart.
ALONE = [Roles(0, [0], [0]), Roles(0, [1], [1]), Roles(0, [0, 1], [1])]


@pytest.mark.parametrize("n_fetch", [1, 3])
@pytest.mark.parametrize("n_push", [1, 2])
@pytest.mark.parametrize("roles", ALONE, ids=str)
def test_one_replica_computes_what_serial_sgd_does(roles, n_fetch, n_push):
    problem = Digits(dtype=np.float64)
    truth, _ = train_serially(problem, FixedRate(rate=0.1), Stop(epochs=2))
    ranks = 1 + max(roles.shards + roles.replicas)
    outcomes, heard, _ = train_in_simulator(
        problem,
        FixedRate(rate=0.1),
        ranks=ranks,
        roles=roles,
        settings=Downpour(n_fetch=n_fetch, n_push=n_push),
        stop=Stop(epochs=2),
        evaluate=Evaluate(every_examples=500),
        latency=1e-4,
    )
    np.testing.assert_allclose(outcomes[0].parameters.flat, truth.parameters.flat, rtol=0, atol=1e-12)
    assert len(heard.evaluations) > 3  # also where the replica's waits leave little time for them


@pytest.mark.parametrize("coordinator", ["beside", "apart"])
def test_several_replicas_learn(coordinator):
    outcomes, heard, _ = train_in_simulator(
        Digits(),
        Adagrad(rate=0.05),
        ranks=5,
        roles=assign(5, 3, "beside", coordinator),
        settings=Downpour(warmstart=20, ramp=20),
        stop=Stop(epochs=12),
        flops=1e8,
        jitter=0.2,
    )
    last = heard.evaluations[-1]
    assert last.examples == 12 * Digits().training_examples
    assert last.accuracy > 0.9
    assert [outcome.failed for outcome in outcomes] == [False] * 5


@pytest.mark.parametrize("seed", range(40))
def test_no_schedule_makes_ranks_wait_in_a_circle(seed):
    """All kinds of clusters; a time limit instead of deadlines, so that only a circle or a hang ends one."""
    draw = np.random.default_rng(seed)
    ranks = int(draw.integers(2, 7))
    coordinator = str(draw.choice(["beside", "apart"]))
    shards = int(draw.integers(1, ranks if coordinator == "apart" else ranks + 1))
    staleness = {"server": Server(staleness=Bounded(steps=int(draw.integers(0, 3))))} if draw.random() < 0.4 else {}
    outcomes, heard, _ = train_in_simulator(
        Digits(batch=64),
        FixedRate(rate=0.01),
        ranks=ranks,
        roles=assign(ranks, shards, "beside", coordinator),
        settings=Downpour(
            n_fetch=int(draw.integers(1, 4)),
            n_push=int(draw.integers(1, 4)),
            warmstart=int(draw.integers(0, 5)),
            ramp=int(draw.integers(0, 9)),
            overlap=bool(draw.random() < 0.5),
        ),
        evaluate=Evaluate(every_examples=300),
        latency=float(10 ** draw.uniform(-7, -2)),
        bandwidth=float(10 ** draw.uniform(6, 10)),
        flops=float(10 ** draw.uniform(7, 10)),
        memory_bandwidth=float(10 ** draw.uniform(6, 10)),
        speeds={int(draw.integers(0, ranks)): 0.1},
        jitter=1.0,
        seed=seed,
        time_limit=1e5,
        **staleness,
    )
    assert heard.evaluations[-1].examples == Digits().training_examples
    assert len(set(heard.evaluations[-1].updates)) == 1
    assert [outcome.failed for outcome in outcomes] == [False] * ranks


def test_deadlines_hold():
    def program(endpoint):
        downpour.train(
            endpoint,
            assign(3, 3, "beside"),
            Digits(),
            FixedRate(rate=0.1),
            Downpour(),
            Stop(epochs=99),
            Evaluate(),
            Heard(),
            20.0,
        )

    cluster = Cluster(3, flops=1e7)
    cluster.kill(1, at=0.5)
    with pytest.raises(DeadlineExpired, match=r"rank [02] waited 20 s for"):
        cluster.run(program)
    assert cluster.now < 22
