"""The ring in the simulator: the checks of `ring_suite`, what a sum costs, and a rank that is missing."""

import numpy as np
import pytest

from comm import ring_suite, suite
from distbelief.comm.endpoint import DeadlineExpired
from distbelief.comm.ring import Ring
from distbelief.comm.sim import Cluster


@pytest.mark.parametrize("name", ring_suite.CHECKS)
def test_quiet(name):
    Cluster(suite.RANKS).run(ring_suite.CHECKS[name])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ring_suite.CHECKS)
def test_noisy(name, seed):
    Cluster(suite.RANKS, latency=1e-5, jitter=1.0, speeds={0: 0.1}, seed=seed).run(ring_suite.CHECKS[name])


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_any_number_of_ranks(ranks):
    def program(endpoint):
        vector = np.arange(100.0) + endpoint.rank
        Ring(endpoint, 1.0).sum(vector)
        return vector

    for vector in Cluster(ranks).run(program):
        np.testing.assert_array_equal(vector, ranks * np.arange(100.0) + sum(range(ranks)))


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_sum_takes_the_time_of_its_bytes(ranks):
    """2 (n - 1) / n of the vector through every link, in and out at once; latency and additions cost nothing here."""
    nbytes, bandwidth = 1 << 23, 1e9

    def program(endpoint):
        ring = Ring(endpoint, 1.0)
        ring.sum(np.ones(nbytes // 4, np.float32))
        return ring.bytes_reduced, ring.bytes_gathered, ring.seconds_reducing + ring.seconds_gathering

    cluster = Cluster(ranks, latency=0.0, bandwidth=bandwidth, memory_bandwidth=1e18)
    for reduced, gathered, seconds in cluster.run(program):
        assert reduced == gathered == nbytes * (ranks - 1) // ranks
        least = (reduced + gathered) / bandwidth
        assert least <= seconds < 1.3 * least  # the pipeline has to fill


def test_a_rank_that_dies_is_missed_by_its_neighbour():
    def program(endpoint):
        Ring(endpoint, 2.0).sum(np.ones(4_000_000))

    cluster = Cluster(4)
    cluster.kill(2, at=1e-4)
    with pytest.raises(
        DeadlineExpired, match=r"rank (3 waited 2 s for rank 2 to send|1 waited 2 s for rank 2 to take)"
    ):
        cluster.run(program)
