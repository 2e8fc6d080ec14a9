"""Dense networks cut into partitions against the same on one rank."""

import numpy as np
import pytest
from partition.cut_networks import a_batch, expect_equal, on_one_rank, on_partitions

from distbelief.nn import Dense


def dense_layers(widths=(13, 11, 17, 9), activations=("tanh", "relu", "linear")):
    return [Dense(f"dense{i}", widths[i], widths[i + 1], name) for i, name in enumerate(activations)]


@pytest.mark.parametrize("partitions", range(1, 9))
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_gradient_and_score_are_those_of_one_rank(partitions, dtype, tolerance):
    """A smaller batch after a larger one, too: its buffers still hold the larger."""
    layers = dense_layers()
    batches = [a_batch(layers, n, dtype) for n in (7, 3)]
    found, _ = on_partitions(layers, partitions, batches, dtype)
    expect_equal(found, on_one_rank(layers, batches, dtype), tolerance)
