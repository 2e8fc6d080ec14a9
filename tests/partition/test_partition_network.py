"""Networks cut into partitions against the same on one rank, in the simulator."""

import numpy as np
import pytest
from partition.cut_networks import a_batch, expect_equal, on_one_rank, on_partitions, slices
from partition.some_networks import NETWORKS, dense

from distbelief.comm.endpoint import DeadlineExpired
from distbelief.comm.sim import Cluster
from distbelief.errors import UserError
from distbelief.nn import Arena, Network, OneVsAllLogistic, SoftmaxCrossEntropy, SquaredError
from distbelief.nn.initialisation import fill
from distbelief.partition import PartitionedNetwork, Peers, Plan


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("partitions", range(1, 9))
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-5), (np.float64, 1e-12)])
def test_gradient_and_score_are_those_of_one_rank(name, partitions, dtype, tolerance):
    """A smaller batch after a larger one, too: its buffers still hold the larger."""
    layers, loss = NETWORKS[name]()
    batches = [a_batch(layers, n, dtype) for n in (7, 3)]
    found, _ = on_partitions(layers, partitions, batches, dtype, loss)
    expect_equal(found, on_one_rank(layers, batches, dtype, loss), tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_messages_that_come_late_and_in_any_order_change_nothing(name):
    """To the bit: what arrives is added in a fixed order."""
    layers, loss = NETWORKS[name]()
    batches = [a_batch(layers, n) for n in (7, 3)]
    prompt, _ = on_partitions(layers, 4, batches, loss=loss)
    late, _ = on_partitions(layers, 4, batches, loss=loss, latency=1e-3, jitter=1.0, bandwidth=1e6, seed=5)
    for (loss, gradient, _), (late_loss, late_gradient, _) in zip(prompt, late, strict=True):
        assert late_loss == loss
        np.testing.assert_array_equal(late_gradient, gradient)


def test_partitions_without_any_row_do_no_harm():
    layers, loss = NETWORKS["untied then tied"]()
    batches = [a_batch(layers, 4)]
    found, _ = on_partitions(layers, 12, batches, loss=loss, may_be_empty=True)
    expect_equal(found, on_one_rank(layers, batches, loss=loss), 1e-12)


def test_each_partition_may_be_given_its_region_of_the_input_only():
    layers, _ = NETWORKS["untied then tied"]()
    batch, plan = a_batch(layers, 4), Plan(layers, 3)

    def play(endpoint):
        network = PartitionedNetwork(Peers(endpoint, range(3), 100.0), plan, 4, np.float64)
        parameters, gradient = Arena(network.layout, float), Arena(network.layout, float)
        network.initialise(parameters, 1)
        first, last = network.features
        assert last - first < batch.x_in.shape[0]
        whole = network.gradient(parameters, batch, gradient), gradient.flat.copy()
        part = a_batch(layers, 4)
        part.x_in = batch.x_in[first:last].copy()
        return whole, (network.gradient(parameters, part, gradient), gradient.flat)

    for (loss, gradient), (loss_of_part, gradient_of_part) in Cluster(3).run(play):
        assert loss == loss_of_part
        np.testing.assert_array_equal(gradient, gradient_of_part)


@pytest.mark.parametrize("latency", [1e-6, 1e-3])
def test_a_partition_that_dies_is_named_with_its_rank_and_the_layer(latency):
    """Partition 1 is rank 3 here: ranks of a replica need not begin at 0."""
    layers, _ = dense()
    batch, plan = a_batch(layers, 4), Plan(layers, 2)

    def play(endpoint):
        if endpoint.rank < 2:
            return
        network = PartitionedNetwork(Peers(endpoint, [2, 3], timeout=1.0), plan, 4, np.float64)
        parameters, gradient = Arena(network.layout, float), Arena(network.layout, float)
        for _ in range(1000):
            network.gradient(parameters, batch, gradient)

    cluster = Cluster(4, latency=latency, time_limit=1e4)
    cluster.kill(3, at=5.3 * latency)
    with pytest.raises(
        DeadlineExpired, match=r"rank 2 waited 1 s for .* partition 1 of the replica \(rank 3\)"
    ) as told:
        cluster.run(play)
    assert any(word in str(told.value) for word in ("dense0", "dense1", "softmax"))


@pytest.mark.parametrize("name", ["dense", "convolution"])
def test_a_penalty_falls_on_each_weight_once(name):
    layers, loss = NETWORKS[name]()
    batch, plan, penalty = a_batch(layers, 4), Plan(layers, 3), 0.3
    whole = Network(layers, 4, np.float64, loss, penalty)
    parameters, gradient = Arena(whole.layout, float), Arena(whole.layout, float)
    whole.initialise(parameters, 1)
    truth = whole.gradient(parameters, batch, gradient)

    def play(endpoint):
        network = PartitionedNetwork(Peers(endpoint, range(3), 100.0), plan, 4, np.float64, loss, penalty)
        mine, found = Arena(network.layout, float), Arena(network.layout, float)
        network.initialise(mine, 1)
        return network.gradient(mine, batch, found), found.flat, slices(network, gradient.flat)

    for value, found, true in Cluster(3).run(play):
        assert value == pytest.approx(truth, rel=1e-12)
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12 * np.abs(true).max())


def test_real_targets_have_a_squared_error_but_no_right_and_wrong():
    layers, _ = dense()
    batch = a_batch(layers, 5)
    batch.labels = np.random.default_rng(0).standard_normal((9, 5))
    found, _ = on_partitions(layers, 4, [batch], loss=SquaredError())
    expect_equal(found, on_one_rank(layers, [batch], loss=SquaredError()), 1e-12)
    assert found[0][2][1] is None


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), OneVsAllLogistic(), SquaredError()])
def test_a_nan_is_everybodys_and_never_right(loss):
    layers, _ = dense()
    batch = a_batch(layers, 5)
    batch.x_in[0, 1] = np.nan
    found, _ = on_partitions(layers, 3, [batch], loss=loss)
    truth = on_one_rank(layers, [batch], loss=loss)
    assert np.isnan(found[0][0]) and np.isnan(truth[0][0])
    assert found[0][2][1] == truth[0][2][1] and np.isnan(found[0][2][0])


def test_a_loss_that_cannot_be_cut_is_refused():
    class Odd(SoftmaxCrossEntropy.__base__):
        pass

    layers, _ = dense()
    with pytest.raises(UserError, match="a loss of type Odd cannot be cut over partitions"):
        Cluster(1).run(lambda e: PartitionedNetwork(Peers(e, [0], 1.0), Plan(layers, 1), 4, loss=Odd()))


def test_any_part_of_a_tensor_begins_as_in_the_whole():
    """Here for a tensor of more than one block; the tests above would tell for smaller ones."""
    whole = np.empty(200_000, np.float32)
    fill(whole, 7, "dense0.w", 0.5)
    for start, stop in ((0, 200_000), (1, 70_000), (65_537, 65_540), (131_071, 200_000)):
        part = np.empty(stop - start, np.float32)
        fill(part, 7, "dense0.w", 0.5, start)
        np.testing.assert_array_equal(part, whole[start:stop])
