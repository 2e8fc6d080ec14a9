"""The same gradient twice: of a network on one rank, and of its partitions in the simulator."""

from types import SimpleNamespace

import numpy as np

from distbelief.comm.sim import Cluster
from distbelief.nn import Arena, Network
from distbelief.partition import PartitionedNetwork, Peers, Plan


def a_batch(layers, n, dtype=np.float64, seed=3):
    random = np.random.default_rng(seed)
    x = random.standard_normal((int(np.prod(layers[0].below)), n)).astype(dtype)
    return SimpleNamespace(x_in=x, labels=random.integers(0, int(np.prod(layers[-1].shape)), n), size=n)


def on_one_rank(layers, batches, dtype=np.float64, loss=None, seed=1):
    """For each batch (loss, gradient as a flat vector, score) at the network's beginning."""
    network = Network(layers, max(batch.size for batch in batches), dtype, loss)
    parameters, gradient = Arena(network.layout, dtype), Arena(network.layout, dtype)
    network.initialise(parameters, seed)
    return [
        (network.gradient(parameters, batch, gradient), gradient.flat.copy(), network.score(parameters, batch))
        for batch in batches
    ]


def on_partitions(layers, partitions, batches, dtype=np.float64, loss=None, seed=1, may_be_empty=False, **cluster):
    """The same from `partitions` ranks, their parts put together; and for each rank its (peers, network)."""
    plan = Plan(layers, partitions, may_be_empty)

    def play(endpoint):
        peers = Peers(endpoint, range(partitions), timeout=100.0)
        network = PartitionedNetwork(peers, plan, max(batch.size for batch in batches), dtype, loss)
        parameters, gradient = Arena(network.layout, dtype), Arena(network.layout, dtype)
        network.initialise(parameters, seed)
        found = []
        for batch in batches:
            gradient.flat[:] = np.nan
            value = network.gradient(parameters, batch, gradient)
            found.append((value, gradient.flat.copy(), network.score(parameters, batch)))
        return found, peers, network

    ranks = Cluster(partitions, **cluster).run(play)
    together = []
    for i in range(len(batches)):
        flat = np.full(ranks[0][2].whole.size, np.nan, dtype)
        for found, _, network in ranks:
            scatter(network, found[i][1], flat)
            assert found[i][0] == ranks[0][0][i][0] and found[i][2] == ranks[0][0][i][2], "all say the same"
        together.append((ranks[0][0][i][0], flat, ranks[0][0][i][2]))
    return together, [(peers, network) for _, peers, network in ranks]


def scatter(network, part, whole):
    """Put a partition's flat vector to its places in the whole one, where nobody has been yet."""
    first = 0
    for interval in network.intervals:
        assert np.isnan(whole[interval.start : interval.stop]).all()
        whole[interval.start : interval.stop] = part[first : first + interval.size]
        first += interval.size
    assert first == part.size


def expect_equal(found, truth, tolerance):
    for (loss, gradient, score), (true_loss, true_gradient, true_score) in zip(found, truth, strict=True):
        assert abs(loss - true_loss) <= tolerance * abs(true_loss)
        scale = np.abs(true_gradient).max()
        np.testing.assert_allclose(gradient, true_gradient, rtol=0, atol=tolerance * scale)
        assert abs(score[0] - true_score[0]) <= tolerance * abs(true_score[0])
        assert score[1] == true_score[1]
