"""One network over the ranks of a replica, with the face of nn.Network (Dean et al. 2012, section 3)."""

import math

import numpy as np

from distbelief.kernels import l2_penalty
from distbelief.nn.arena import Arena, Layout
from distbelief.nn.bfloat16 import wide
from distbelief.nn.initialisation import fill
from distbelief.nn.interval import Interval
from distbelief.nn.layers import BFLOAT16, Layer
from distbelief.nn.losses import Loss, SoftmaxCrossEntropy
from distbelief.nn.memory import Memory, room_for
from distbelief.nn.network import Hook
from distbelief.partition.band import Band, Scratch
from distbelief.partition.boundary import Allocate, Boundary, Inputs, Room
from distbelief.partition.losses import cut_loss
from distbelief.partition.peers import Peers
from distbelief.partition.plan import Plan
from distbelief.partition.shared import Shared


class PartitionedNetwork:
    """This rank's partition of a chain of layers under a loss, for minibatches of up to `batch` examples.

    `gradient` and `score` are Collective over the replica: all its ranks call them, with the same examples. `layout`
    is that of this partition's slices, under the tensors' names; `whole` is the logical one, `intervals` are the
    places in it that the flat vector of `layout` is made of, in order. Those of all partitions make up the whole.
    """

    def __init__(
        self,
        peers: Peers,
        plan: Plan,
        batch: int,
        dtype: np.dtype | type | str = np.float32,
        loss: Loss | None = None,
        penalty: float = 0.0,
        allocate: Allocate = np.empty,
    ):
        """`loss` and `penalty` as those of nn.Network; `allocate` makes the buffers.

        `dtype`: float32 or float64; or "bfloat16": parameters come in bfloat16 (`held`), for a plan of layers that
        take them so (nn.bfloat16.holding); gradients, activations and what is exchanged are float32. Raises
        UserError if the loss cannot be cut, or there is no memory for the buffers.
        """
        assert plan.partitions == len(peers), f"a plan for {plan.partitions} partitions on {len(peers)} ranks"
        layers = self.layers = plan.layers
        self.batch = batch
        narrow = dtype == "bfloat16"
        self.dtype = wide(dtype)
        self.held = BFLOAT16 if narrow else self.dtype
        """The type of the parameters that it computes with."""
        self.inputs = math.prod(layers[0].below)
        self.classes = math.prod(layers[-1].shape)
        self.whole = Layout({name: shape for layer in layers for name, shape in layer.shapes.items()})
        held = plan.held(peers.partition)
        self.layout = Layout({t.name: (held[t.name].size, *t.shape[1:]) for t in self.whole.tensors})
        self.intervals = [place(t, held[t.name]) for t in self.whole.tensors]
        self._peers = peers
        self._inputs = Inputs(plan, peers.partition, self.dtype)
        with room_for(layers, batch):
            room = Room(self.dtype, allocate).take
            self._outputs = [Boundary(peers, plan, i, batch, self.dtype, room) for i in range(len(layers))]
            self._shared = [Shared(peers, plan, i, self.dtype) for i in range(len(layers))]
            self._scratch = Scratch(self.dtype)
            below = [self._inputs, *self._outputs]
            self._bands = [
                Band(peers.endpoint, layer, below[i], self._outputs[i], self._shared[i], batch, self._scratch, room)
                for i, layer in enumerate(layers)
            ]
        width = plan.row_size(len(layers) - 1)
        classes = Interval(self._outputs[-1].own.start * width, self._outputs[-1].own.stop * width)
        self._loss = cut_loss(loss or SoftmaxCrossEntropy(), peers, classes, batch)
        self._penalty = penalty

    @property
    def features(self) -> Interval:
        """The numbers of an example that this partition needs."""
        return self._inputs.features

    @property
    def memory(self) -> Memory:
        """The bytes that training takes on this rank: this network's buffers, and parameters and gradient with them."""
        return Memory(
            self.layout.size * self.held.itemsize,
            self.layout.size * self.dtype.itemsize,
            sum(boundary.activations for boundary in self._outputs),
            sum(boundary.errors for boundary in self._outputs),
            self._scratch.nbytes + sum(part.nbytes for part in [*self._bands, *self._shared]),
        )

    def initialise(self, parameters: Arena, seed: int) -> None:
        """Fill this partition's `parameters` with its part of the beginning that nn.Network would give. Local."""
        spreads = {name: layer.spread(name) for layer in self.layers for name in layer.shapes}
        for tensor, interval in zip(self.whole.tensors, self.intervals, strict=True):
            part = parameters[tensor.name].reshape(-1)
            fill(part, seed, tensor.name, spreads[tensor.name], interval.start - tensor.start)

    def gradient(
        self, parameters: Arena, batch, gradient: Arena, needed: Hook | None = None, produced: Hook | None = None
    ) -> float:
        """The mean loss over `batch`, the same on every partition; overwrites `gradient`. Collective over the replica.

        batch.x_in: [inputs, n], or only the `features` of each example; batch.labels [n]. `needed`, `produced`: called
        with names of tensors as by nn.Network.gradient; of tied layers at the beginning and at the end of the step.
        """
        z = self._forward(parameters, batch.x_in, backward=True, needed=needed)
        top = self._outputs[-1]
        loss = self._loss.gradient(z, batch.labels, self._flat(top.dy(top.own)))
        produced = produced if produced is not None and math.isfinite(loss) else _nobody
        penalty = 0.0
        for layer, band, above in zip(
            reversed(self.layers), reversed(self._bands), reversed(self._outputs), strict=True
        ):
            above.arrive_back()
            band.backward(parameters, gradient)
            if not layer.tied:
                penalty += self._penalise(layer, parameters, gradient)
                produced(*layer.shapes)
        for layer, shared in zip(self.layers, self._shared, strict=True):
            if layer.tied:
                shared.arrive_back(gradient)
                penalty += self._penalise(layer, parameters, gradient)
                produced(*layer.shapes)
        if self._penalty:
            penalty = float(self._peers.share(np.array([penalty]), "the sums of the penalty").sum())
        self._peers.settle()
        return loss + penalty

    def score(self, parameters: Arena, batch) -> tuple[float, int | None]:
        """The sum of the losses over `batch`, and how many of its examples are classified rightly: the same on every
        partition. Collective over the replica."""
        result = self._loss.score(self._forward(parameters, batch.x_in, backward=False), batch.labels)
        self._peers.settle()
        return result

    def flops(self, examples: int) -> float:
        """0: a step over several ranks charges its endpoint piece by piece, as it goes."""
        return 0.0

    def _forward(self, parameters: Arena, x_in: np.ndarray, backward: bool, needed: Hook | None = None) -> np.ndarray:
        """Returns this partition's outputs of the last layer, as the loss sees them."""
        n = x_in.shape[1]
        if n > self.batch:
            raise ValueError(f"a batch of {n} examples, the network was built for up to {self.batch}")
        needed = needed or _nobody
        self._inputs.take(x_in)
        for layer, shared in zip(self.layers, self._shared, strict=True):
            if layer.tied:
                needed(*layer.shapes)
            shared.begin(parameters, backward)
        for boundary in self._outputs:
            boundary.begin(n, backward)
        for layer, band in zip(self.layers, self._bands, strict=True):
            if not layer.tied:
                needed(*layer.shapes)
            band.forward(parameters)
        top = self._outputs[-1]
        return self._flat(top.y(top.own))

    def _penalise(self, layer: Layer, parameters: Arena, gradient: Arena) -> float:
        """Adds the gradient of the penalty on a layer's weights to `gradient`; returns this partition's penalty."""
        if self._penalty == 0:
            return 0.0
        weights = [(parameters[name].reshape(-1), gradient[name].reshape(-1)) for name in layer.weights]
        return sum(l2_penalty(w, self._penalty, dw) for w, dw in weights)

    @staticmethod
    def _flat(z: np.ndarray) -> np.ndarray:
        return z.reshape(math.prod(z.shape[:-1]), z.shape[-1])


def _nobody(*names: str) -> None:
    """A hook for those who have none."""


def place(tensor, rows: Interval) -> Interval:
    """Where the leading indices `rows` of a tensor lie in the flat vector."""
    row = math.prod(tensor.shape[1:])
    return Interval(tensor.start + rows.start * row, tensor.start + rows.stop * row)
