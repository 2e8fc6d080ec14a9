"""A network on one rank: a chain of layers and a loss. It has no idea of others."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from distbelief.errors import UserError
from distbelief.kernels import l2_penalty
from distbelief.nn.accrual import Accrual
from distbelief.nn.arena import Arena, Layout
from distbelief.nn.bfloat16 import Rounded, computing, holding, wide
from distbelief.nn.build import place
from distbelief.nn.initialisation import fill_interval
from distbelief.nn.layers import BFLOAT16, Accruing, DenseBfloat16, Layer
from distbelief.nn.losses import LOSSES, Loss, SoftmaxCrossEntropy
from distbelief.nn.memory import Buffers, Memory, Views, room_for

Hook = Callable[..., None]
"""Called with names of tensors."""


class Network:
    """A chain of layers under a loss, for minibatches of up to `batch` examples.

    All buffers are allocated here, so a training step allocates nothing. Raises UserError, naming the layer by
    position, if there are none, they do not chain or do not fit the loss, or there is no memory for them.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        batch: int,
        dtype: np.dtype | type | str = np.float32,
        loss: Loss | str | None = None,
        penalty: float = 0.0,
        held: str | None = None,
    ):
        """`dtype`: float32 or float64; or "bfloat16": parameters, gradient and inputs are float32, dense layers compute
        in bfloat16 (layers.DenseBfloat16) and hand it to each other, and others compute in float32.

        `held`: "bfloat16" if the parameters given are bfloat16 too (uint16), and no float32 copy of them is to be; None
        if they are as computed. Only with dtype "bfloat16"; dense and locally connected layers alone can have it so.

        `loss`: SoftmaxCrossEntropy, unless another is given, or its name in LOSSES.

        `penalty`: adds penalty/2 times the sum of the squares of all weights (not biases) to the loss of a minibatch,
        once, and its gradient to the gradient. A score is without it.
        """
        if not isinstance(batch, int | np.integer) or batch < 1:
            raise UserError(f"batch = {batch!r}, expected an integer of 1 or more: examples in a minibatch")
        self._loss = _loss(loss)
        _expect_chain(layers, self._loss)
        self.batch = batch
        narrow = dtype == "bfloat16"
        if held is not None and not (narrow and held == "bfloat16"):
            raise ValueError(f"parameters held in {held}, computed in {dtype}: expected bfloat16 for both")
        self.layers = list(layers) if not narrow else holding(layers) if held else computing(layers)
        self.dtype = wide(dtype)
        self.held = BFLOAT16 if held else self.dtype
        self.inputs = math.prod(layers[0].below)
        self.classes = math.prod(layers[-1].shape)
        self.layout = Layout({name: shape for layer in layers for name, shape in layer.shapes.items()})
        self._penalty = penalty
        with room_for(self.layers, batch):
            self._rounded = Rounded(self.layers) if narrow and not held else None
            self._buffers = Buffers(self.layers, self._loss, batch, self.dtype, self._outputs())

    @property
    def memory(self) -> Memory:
        """The bytes that training takes, this network's buffers and parameters and gradient to go with them."""
        size, buffers = self.layout.size, self._buffers
        parameters = size * self.held.itemsize + (0 if self._rounded is None else self._rounded.nbytes)
        gradient = size * self.dtype.itemsize
        return Memory(parameters, gradient, buffers.activations, buffers.errors, buffers.scratch_bytes)

    def initialise(self, parameters: Arena, seed: int) -> None:
        """Fill `parameters`, of type `held`, with the beginning that `seed` names, the same on every machine. Local."""
        self.initialise_interval(parameters.flat, seed)

    def initialise_interval(self, values: np.ndarray, seed: int, start: int = 0) -> None:
        """Fill `values` [size] with elements start..start+size-1 of that beginning, and draw no others. Local."""
        spreads = {name: layer.spread(name) for layer in self.layers for name in layer.shapes}
        fill_interval(values, seed, self.layout, spreads, start)

    def gradient(
        self,
        parameters: Arena,
        batch,
        gradient: Arena,
        needed: Hook | None = None,
        produced: Hook | None = None,
        accrual: Accrual | None = None,
    ) -> float:
        """The mean loss over `batch` (x_in [inputs, n], labels); overwrites `gradient`. Local.

        `needed(*names)` is called before a layer computes with its tensors, `produced(*names, finite=...)` once their
        gradients are final; if the loss over the batch is not finite, not at all. `finite`: that the gradients are
        is certain.

        `accrual`: what is to become of the gradients as they are computed, layer by layer, before `produced` is called;
        if the loss is not finite, nothing. `gradient` is then only room for those that have to be written on the way.
        """
        x, views = self._forward(parameters, batch.x_in, needed)
        given = parameters if self._rounded is None else self._rounded
        y, dy = views.y, views.dy
        loss = self._loss.gradient(self._flat(y[-1]), batch.labels, self._flat(dy[-1]), self._buffers.loss_scratch)
        penalty, finite = 0.0, math.isfinite(loss)
        if accrual is not None and not finite:
            return loss
        into = gradient if accrual is None or not accrual.fresh else accrual.accrued
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            below, error_below = (y[i - 1], dy[i - 1]) if i else (x, views.nothing)
            # Before backward, which spoils dy; with a penalty, weights would have to be looked at too.
            asked = produced is not None or accrual is not None
            known = asked and not self._penalty and layer.bounded(below, y[i], dy[i])
            if accrual is not None and known and isinstance(layer, Accruing) and layer.accrues(x.shape[-1]):
                arrays = below, y[i], dy[i], accrual, error_below, self._buffers.scratch[i]
                layer.accrue(given, parameters, *arrays)
            else:
                layer.backward(given, below, y[i], dy[i], into, error_below, self._buffers.scratch[i])
                penalty += self._penalise(layer, parameters, into)
                if accrual is not None:
                    known = accrual.take_in(layer.shapes, parameters, into, known)
            if produced is not None and finite:
                produced(*layer.shapes, finite=known)
        return loss + penalty

    def score(self, parameters: Arena, batch) -> tuple[float, int | None]:
        """The sum of the losses over `batch`, and how many of its examples are classified rightly. Local."""
        _, views = self._forward(parameters, batch.x_in)
        return self._loss.score(self._flat(views.y[-1]), batch.labels, self._buffers.loss_scratch)

    def flops(self, examples: int) -> float:
        """Floating-point operations of one forward pass over `examples`; a gradient takes three times that."""
        return sum(layer.flops(examples) for layer in self.layers)

    def _forward(self, parameters: Arena, x_in: np.ndarray, needed: Hook | None = None) -> tuple[np.ndarray, Views]:
        """The inputs in the first layer's shape, and the arrays of the step, of which y is filled."""
        numbers, n = x_in.shape
        if numbers != self.inputs:
            raise ValueError(f"examples of {numbers} numbers, the network takes {self.inputs}")
        if n > self.batch:
            raise ValueError(f"a batch of {n} examples, the network was built for up to {self.batch}")
        views = self._buffers.views(n)
        first = below = x_in.reshape(*self.layers[0].below, n)
        for layer, y, scratch in zip(self.layers, views.y, self._buffers.scratch, strict=True):
            if needed is not None:
                needed(*layer.shapes)
            given = parameters
            if self._rounded is not None:
                given = self._rounded
                given.take(parameters, layer)
            layer.forward(given, below, y, scratch)
            below = y
        return first, views

    def _outputs(self) -> list[np.dtype]:
        """The types of the layers' outputs: bfloat16 from one layer in bfloat16 to the next."""
        narrow = [isinstance(layer, DenseBfloat16) for layer in self.layers] + [False]
        return [BFLOAT16 if narrow[i] and narrow[i + 1] else self.dtype for i in range(len(self.layers))]

    def _penalise(self, layer: Layer, parameters: Arena, gradient: Arena) -> float:
        """Adds the gradient of the penalty on a layer's weights to `gradient`; returns the penalty."""
        if self._penalty == 0:
            return 0.0
        weights = [(parameters[name].reshape(-1), gradient[name].reshape(-1)) for name in layer.weights]
        return sum(l2_penalty(w, self._penalty, dw) for w, dw in weights)

    def _flat(self, z: np.ndarray) -> np.ndarray:
        """The last layer's outputs, or their gradients, as the loss sees them: [classes, n]."""
        return z.reshape(self.classes, z.shape[-1])


def _loss(given: Loss | str | None) -> Loss:
    if isinstance(given, str):
        if given not in LOSSES:
            raise UserError(f"loss = {given!r}, expected one of {', '.join(LOSSES)}")
        return LOSSES[given]()
    return given or SoftmaxCrossEntropy()


def _expect_chain(layers: Sequence[Layer], loss: Loss) -> None:
    """Raises UserError for no layers, and for one that does not fit what is below it, or the loss above."""
    if not layers:
        raise UserError("network.layers: none, expected at least one")
    for i, (below, layer) in enumerate(zip(layers, layers[1:], strict=False), 1):
        if below.shape != layer.below:
            raise UserError(f"{place(i, layer.name)}: takes {list(layer.below)}, found {list(below.shape)} below")
    try:
        loss.check(layers[-1].shape)
    except UserError as error:
        raise UserError(f"{place(len(layers) - 1, layers[-1].name)}: {error}") from None
