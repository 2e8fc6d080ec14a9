"""The same networks in PyTorch, as its users write them: batch first, einsum over unfold, conv2d, avg_pool2d.

Import it only for a race: PyTorch takes seconds to load, and memory.
"""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from networks import Step
from torch import Tensor
from torch.nn import functional

from distbelief.nn import Dense, LocallyConnected, Normalise, Pool
from distbelief.nn.layers.normalisation import gaussian

_ACTIVATIONS = {"linear": lambda z: z, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


def steps(ours: Step, dtype: str, threads: int) -> dict[str, Callable[[], float]]:
    """What PyTorch has for this type, by name; each makes a step, all gradients fresh, and returns the loss."""
    torch.set_num_threads(threads)
    if dtype == "float32":
        return {"torch float32": Reference(ours)}
    bfloat16 = {"torch autocast": Reference(ours, autocast=True)}
    if ours.loss == "softmax":  # unfold and the other losses know no bfloat16 throughout
        bfloat16["torch bfloat16"] = Reference(ours, held=torch.bfloat16)
    return bfloat16


class Reference:
    """A step of the network in PyTorch, with the same parameters and minibatch."""

    def __init__(self, ours: Step, held: torch.dtype = torch.float32, autocast: bool = False):
        self._autocast = autocast
        self._parameters: list[Tensor] = []
        self._held = held
        x, n = ours.batch.x_in, ours.batch.size
        layers = ours.network.layers
        shape = (n, *layers[0].below)
        x = x.T.reshape(shape)
        self._x = torch.tensor(x.transpose(0, 3, 1, 2).copy() if x.ndim == 4 else x.copy()).to(held)
        self._layers = [self._layer(layer, ours.parameters) for layer in layers]
        self._loss = _loss(ours)

    def __call__(self) -> float:
        for parameter in self._parameters:
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16) if self._autocast else nullcontext():
            y = self._x
            for layer in self._layers:
                y = layer(y)
            loss = self._loss(y)
        loss.backward()
        return loss.item()

    def _parameter(self, array: np.ndarray) -> Tensor:
        values = torch.tensor(np.ascontiguousarray(array))
        if array.dtype == np.uint16:
            values = values.view(torch.bfloat16)
        self._parameters.append(values.to(self._held).requires_grad_())
        return self._parameters[-1]

    def _layer(self, layer, parameters) -> Callable[[Tensor], Tensor]:
        if isinstance(layer, Pool):
            return l2_pooling(layer)
        if isinstance(layer, Normalise):
            return normalisation(layer)
        activation = _ACTIVATIONS[layer.activation]
        w, b = parameters[layer.w], parameters[layer.b]
        if isinstance(layer, Dense):
            if len(layer.below) == 3:  # we flatten H W C, PyTorch C H W
                w = w.reshape(-1, *layer.below).transpose(0, 3, 1, 2).reshape(w.shape)
            w, b = self._parameter(w), self._parameter(b)
            return lambda x: activation(functional.linear(x.flatten(1), w, b))
        assert isinstance(layer, LocallyConnected)
        oh, ow, maps = layer.shape
        w = self._parameter(w.transpose(0, 1, 2, 5, 3, 4).reshape(oh * ow, maps, -1))
        b = self._parameter(b.reshape(oh * ow, maps).T)

        def filters(x: Tensor) -> Tensor:
            patches = functional.unfold(x, (layer.window.kh, layer.window.kw), stride=layer.window.stride)
            return activation(torch.einsum("lmk,nkl->nml", w, patches) + b).reshape(-1, maps, oh, ow)

        return filters


def l2_pooling(layer: Pool) -> Callable[[Tensor], Tensor]:
    kh, kw = layer.window.kh, layer.window.kw
    return lambda x: torch.sqrt(functional.avg_pool2d(x * x, (kh, kw), layer.window.stride) * (kh * kw))


def normalisation(layer: Normalise) -> Callable[[Tensor], Tensor]:
    kh, kw, rows, columns = layer.window.kh, layer.window.kw, layer.below[0], layer.below[1]
    middle = [gaussian(k, 2 * k)[k] for k in (kh, kw)]  # a row far from the borders
    window = torch.tensor(np.outer(*middle), dtype=torch.float32)[None, None]
    # The weights that a border leaves sum to one again.
    whole = functional.conv2d(torch.ones(1, 1, rows, columns), window, padding=(kh // 2, kw // 2))

    def blur(x: Tensor) -> Tensor:
        return functional.conv2d(x.mean(1, keepdim=True), window, padding=(kh // 2, kw // 2)) / whole

    def normalise(x: Tensor) -> Tensor:
        v = x - blur(x)
        return v / torch.sqrt(blur(v * v)).clamp(min=layer.floor)

    return normalise


def _loss(ours: Step) -> Callable[[Tensor], Tensor]:
    n, labels = ours.batch.size, torch.tensor(ours.batch.labels)
    if ours.loss == "softmax":
        return lambda z: functional.cross_entropy(z, labels)
    if ours.loss == "logistic":
        targets = functional.one_hot(labels, ours.network.classes).float()
        return lambda z: functional.binary_cross_entropy_with_logits(z, targets, reduction="sum") / n
    h, w, c = ours.network.layers[-1].shape
    targets = labels.T.reshape(n, h, w, c).permute(0, 3, 1, 2)
    return lambda z: ((z - targets) ** 2).sum() / (2 * n)
