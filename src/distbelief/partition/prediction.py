"""How long a training step takes on some cluster: the real messages in virtual time, but no arithmetic."""

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from distbelief.comm.endpoint import Endpoint
from distbelief.comm.sim import Cluster
from distbelief.nn.arena import Arena
from distbelief.nn.layers import Layer
from distbelief.nn.losses import Loss
from distbelief.partition.network import PartitionedNetwork
from distbelief.partition.peers import Peers
from distbelief.partition.plan import Plan

Seconds = Callable[[Layer, int, int], float]
"""seconds(layer, position, n): of a forward pass of a layer, or a cut of it, on n examples; backwards it takes twice
as long."""


def predict(
    layers: Sequence[Layer],
    partitions: int,
    n: int,
    seconds: Seconds,
    loss: Loss | None = None,
    *,
    latency: float,
    bandwidth: float,
    memory_bandwidth: float = 10e9,
    dtype: np.dtype | type = np.float32,
) -> float:
    """Seconds of one gradient of `n` examples on as many ranks as `partitions`, until the last has it. Local.

    Bandwidths in bytes/s, latency in seconds, of links that the ranks have to themselves. Partitions may be left
    without rows of a layer: they wait, which a real run refuses to do.
    """
    plan = Plan(layers, partitions, may_be_empty=True)  # as a real one is: balanced by multiply-adds, not by seconds
    plan.layers = [Timed(layer, position, seconds) for position, layer in enumerate(layers)]
    memory = np.empty(0, dtype)

    def allocate(size: int, dtype: np.dtype) -> np.ndarray:
        """The same memory for all arrays of all ranks: nobody looks at the numbers."""
        nonlocal memory
        if memory.size < size:
            memory = np.zeros(size, dtype)
        return memory[:size]

    def play(endpoint: Endpoint) -> float:
        peers = Peers(endpoint, range(partitions), timeout=1e6)
        network = PartitionedNetwork(peers, plan, n, dtype, loss, allocate=allocate)
        parameters, gradient = Arena(network.layout, dtype), Arena(network.layout, dtype)
        batch = SimpleNamespace(x_in=allocate(network.features.size * n, network.dtype), labels=np.zeros(n, np.int64))
        batch.x_in = batch.x_in.reshape(network.features.size, n)
        network.gradient(parameters, batch, gradient)
        return endpoint.clock()

    # One operation a second: what a layer charges for is its seconds.
    cluster = Cluster(
        partitions,
        latency=latency,
        bandwidth=bandwidth,
        flops=1.0,
        memory_bandwidth=memory_bandwidth,
        check_buffers=False,
    )
    with np.errstate(all="ignore"):
        return max(cluster.run(play))


class Timed:
    """A layer that takes time instead of computing. It has no tensors but those that partitions exchange."""

    def __init__(self, layer: Layer, position: int, seconds: Seconds):
        self._layer = layer
        self._position = position
        self._seconds = seconds
        self.name, self.below, self.shape, self.tied = layer.name, layer.below, layer.shape, layer.tied
        self.weights, self.keeps_scratch = (), False
        self.shapes = layer.shapes if layer.tied else {}
        self.region = layer.region

    def cut(self, start: int, stop: int) -> "Timed":
        part = copy.copy(self)
        part._layer = self._layer.cut(start, stop)
        return part

    def spread(self, name: str) -> float:
        return 0.0

    def flops(self, n: int) -> float:
        return self._seconds(self._layer, self._position, n)

    def scratch(self, n: int) -> int:
        return 0

    def forward(self, parameters, x, y, scratch) -> None:
        """Leaves everything as it is."""

    def backward(self, parameters, x, y, dy, gradient, dx, scratch) -> None:
        """Leaves everything as it is."""
