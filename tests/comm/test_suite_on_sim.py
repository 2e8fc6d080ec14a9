"""The endpoint suite on the simulator: on a quiet cluster, and on a noisy one with a straggler."""

import pytest

from comm import collective_suite, event_suite, suite
from distbelief.comm.sim import Cluster

CHECKS = {**suite.CHECKS, **collective_suite.CHECKS, **event_suite.CHECKS}


@pytest.mark.parametrize("name", CHECKS)
def test_quiet(name: str) -> None:
    Cluster(suite.RANKS).run(CHECKS[name])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CHECKS)
def test_noisy(name: str, seed: int) -> None:
    Cluster(suite.RANKS, latency=1e-5, jitter=1.0, speeds={0: 0.1}, seed=seed).run(CHECKS[name])


@pytest.mark.parametrize("name", CHECKS)
def test_on_a_split_endpoint(name: str) -> None:
    def program(endpoint):
        child = endpoint.split(None if endpoint.rank in (0, 3) else 0, -endpoint.rank)
        if child is not None:
            CHECKS[name](child)

    Cluster(suite.RANKS + 2).run(program)
