"""Threads that outnumber cores: who is warned of what."""

import os

import numpy as np
import pytest

from distbelief.comm.sim import Cluster
from distbelief.kernels import use_threads
from distbelief.launch import crowding as module
from distbelief.launch.crowding import crowding, told


def places(*ranks: tuple[int, int, list[int]]) -> np.ndarray:
    """What ranks tell of themselves: node, threads, cores."""
    found = np.zeros(len(ranks), module._PLACE)
    for place, (node, threads, cores) in zip(found, ranks, strict=True):
        place["node"], place["threads"] = node, threads
        place["cores"] = np.packbits(np.isin(np.arange(4096), cores))
    return found


@pytest.mark.parametrize(
    "ranks",
    [
        [(1, 1, [0, 1])],
        [(1, 2, [0, 1]), (2, 2, [0, 1])],  # the same cores of two nodes
        [(1, 2, [0, 1]), (1, 2, [2, 3])],  # bound to cores of their own
        [(1, 2, [0, 1, 2, 3]), (1, 2, [0, 1, 2, 3])],  # bound to nothing
        [(1, 100, list(range(3000, 3100)))],
    ],
)
def test_no_warning_where_there_are_cores_enough(ranks):
    assert told(places(*ranks)) is None


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([(1, 3, [0, 1])], "1 rank with 3 threads in all (run.threads) for 2 cores"),
        ([(1, 2, [0, 1]), (1, 2, [0, 1])], "2 ranks on one node with 4 threads in all (run.threads) for 2 cores"),
        # Launchers bind a rank to one core unless told otherwise: the others of the node are of no use to it.
        ([(1, 2, [0]), (1, 2, [1])], "2 ranks on one node with 4 threads in all (run.threads) for 2 cores"),
        ([(1, 3, [0, 1]), (2, 8, [0, 1])], "1 rank with 8 threads in all (run.threads) for 2 cores"),
    ],
)
def test_the_most_crowded_node_is_named(ranks, words):
    assert told(places(*ranks)) == f"warning: {words}: expect a slow run"


@pytest.fixture
def threads():
    yield use_threads
    use_threads(1)


def test_of_this_process(threads):
    cores = len(os.sched_getaffinity(0))
    assert crowding(None) is None
    threads(cores + 1)
    assert f"1 rank with {cores + 1} threads in all (run.threads) for {cores} cores" in crowding(None)


def test_ranks_of_one_node_are_counted_together(threads):
    """In the simulator all ranks are this process; rank 0 alone hears of it."""
    cores = len(os.sched_getaffinity(0))
    threads(cores)
    heard = {}

    def role(endpoint):
        heard[endpoint.rank] = crowding(endpoint)

    Cluster(2).run(role)
    assert f"2 ranks on one node with {2 * cores} threads in all (run.threads) for {cores} cores" in heard[0]
    assert heard[1] is None
