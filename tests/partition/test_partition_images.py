"""Image networks cut into partitions against the same on one rank."""

import numpy as np
import pytest
from partition.cut_networks import a_batch, expect_equal, on_one_rank, on_partitions
from partition.plain_layers import Taps, chain

from distbelief.nn import Dense
from distbelief.nn.layers.normalisation import Normalise
from distbelief.nn.layers.pooling import Pool


def stages(taps=4, tied=False):
    """23 rows that become 20, 10, 8, 8: windows reach over several partitions where bands are thin."""
    return chain(
        (23, 5, 2),
        lambda name, below: Taps(name, below, taps, tied),
        lambda name, below: Pool(name, below, 2),
        lambda name, below: Taps(name, below, 3, not tied),
        lambda name, below: Normalise(name, below, (3, 1)),
        lambda name, below: Dense(name, below, 9, "tanh"),
        lambda name, below: Dense(name, below, 8),
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("partitions", range(1, 9))
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-5), (np.float64, 1e-12)])
def test_gradient_and_score_are_those_of_one_rank(partitions, tied, dtype, tolerance):
    layers = stages(tied=tied)
    batches = [a_batch(layers, n, dtype) for n in (4, 3)]
    found, _ = on_partitions(layers, partitions, batches, dtype)
    expect_equal(found, on_one_rank(layers, batches, dtype), tolerance)
