"""The same gradient twice: of a network on one rank, and of its partitions."""

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
    return _try_out(Network(layers, _largest(batches), dtype, loss), batches, seed)


def on_this_rank(peers, plan, batches, dtype=np.float64, loss=None, seed=1):
    """The same of this rank's partition, and the partition's network. Collective over the replica."""
    network = PartitionedNetwork(peers, plan, _largest(batches), dtype, loss)
    return _try_out(network, batches, seed), network


def on_partitions(layers, partitions, batches, dtype=np.float64, loss=None, may_be_empty=False, **cluster):
    """The same from `partitions` ranks of a simulated cluster, their parts put together; and each rank's `peers`."""
    plan = Plan(layers, partitions, may_be_empty)

    def play(endpoint):
        peers = Peers(endpoint, range(partitions), timeout=100.0)
        found, network = on_this_rank(peers, plan, batches, dtype, loss)
        return found, network, peers

    ranks = Cluster(partitions, **cluster).run(play)
    together, been = [], np.zeros(ranks[0][1].whole.size)
    for i in range(len(batches)):
        flat = np.full(ranks[0][1].whole.size, np.nan, dtype)
        for found, network, _ in ranks:
            for interval, part in zip(network.intervals, _parts(network, found[i][1]), strict=True):
                flat[slice(*interval)] = part
                been[slice(*interval)] += 1
            assert repr(found[i][::2]) == repr(ranks[0][0][i][::2]), "all say the same"
        together.append((ranks[0][0][i][0], flat, ranks[0][0][i][2]))
    assert (been == len(batches)).all(), "each parameter is held by one partition"
    return together, [peers for _, _, peers in ranks]


def slices(network, whole):
    """A partition's part of a flat vector of the whole network."""
    return np.concatenate([whole[start:stop] for start, stop in network.intervals])


def expect_equal(found, truth, tolerance):
    for (loss, gradient, score), (true_loss, true_gradient, true_score) in zip(found, truth, strict=True):
        assert abs(loss - true_loss) <= tolerance * abs(true_loss)
        scale = np.abs(true_gradient).max()
        np.testing.assert_allclose(gradient, true_gradient, rtol=0, atol=tolerance * scale)
        assert abs(score[0] - true_score[0]) <= tolerance * abs(true_score[0])
        assert score[1] == true_score[1]


def _try_out(network, batches, seed):
    parameters, gradient = Arena(network.layout, network.dtype), Arena(network.layout, network.dtype)
    network.initialise(parameters, seed)
    found = []
    for batch in batches:
        gradient.flat[:] = np.nan
        loss = network.gradient(parameters, batch, gradient)
        found.append((loss, gradient.flat.copy(), network.score(parameters, batch)))
    return found


def _largest(batches):
    return max(batch.size for batch in batches)


def _parts(network, flat):
    """A partition's flat vector, interval by interval."""
    return np.split(flat, np.cumsum([interval.size for interval in network.intervals])[:-1])
