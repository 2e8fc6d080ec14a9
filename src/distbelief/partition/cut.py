"""A network cut over the ranks of a replica, before any of them has memory for it: what each is to hold."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from distbelief.nn.arena import Layout
from distbelief.nn.bfloat16 import holding
from distbelief.nn.interval import Interval
from distbelief.nn.layers import Layer
from distbelief.nn.losses import Loss
from distbelief.partition.boundary import Inputs
from distbelief.partition.network import PartitionedNetwork, place
from distbelief.partition.peers import Peers
from distbelief.partition.plan import Plan


class Cut:
    """A chain of layers under a loss over `partitions` ranks (algorithms.model.Cut). Local."""

    def __init__(
        self,
        layers: Sequence[Layer],
        partitions: int,
        batch: int,
        dtype: np.dtype | type | str = np.float32,
        loss: Loss | None = None,
        penalty: float = 0.0,
    ):
        """Arguments as those of partition.Plan and PartitionedNetwork.

        Raises UserError if a partition is left without rows of some layer.
        """
        self.plan = Plan(holding(layers, exchanged=True) if dtype == "bfloat16" else layers, partitions)
        self._arguments = batch, dtype, loss, penalty

    @cached_property
    def intervals(self) -> list[list[Interval]]:
        """Of each partition: the places in the flat vector that its own is made of, in order."""
        whole = Layout({name: shape for layer in self.plan.layers for name, shape in layer.shapes.items()})
        held = [self.plan.held(partition) for partition in range(self.plan.partitions)]
        return [[place(tensor, rows[tensor.name]) for tensor in whole.tensors] for rows in held]

    def features(self, partition: int) -> Interval:
        """The numbers of a flattened example that `partition` needs."""
        return Inputs.features_of(self.plan, partition)

    def model(self, peers: Peers) -> PartitionedNetwork:
        """This rank's partition, with its buffers."""
        return PartitionedNetwork(peers, self.plan, *self._arguments)
