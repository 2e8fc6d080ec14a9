"""A network on one rank: a chain of layers and a loss. It has no idea of others."""

import zlib
from collections.abc import Sequence

import numpy as np

from distbelief.nn.arena import Arena, Layout
from distbelief.nn.layers import Dense
from distbelief.nn.losses import SoftmaxCrossEntropy


class Network:
    """A chain of layers under a softmax cross-entropy, for minibatches of up to `batch` examples.

    All buffers are allocated here, so a training step allocates nothing. Raises ValueError if the layers do
    not chain.
    """

    def __init__(self, layers: Sequence[Dense], batch: int, dtype: np.dtype | type = np.float32):
        for below, above in zip(layers, layers[1:], strict=False):
            if below.outputs != above.inputs:
                raise ValueError(f"{above.name} takes {above.inputs} inputs, {below.name} gives {below.outputs}")
        self.layers = list(layers)
        self.batch = batch
        self.dtype = np.dtype(dtype)
        self.inputs = layers[0].inputs
        self.classes = layers[-1].outputs
        self.layout = Layout({name: shape for layer in layers for name, shape in layer.shapes.items()})
        self._loss = SoftmaxCrossEntropy(batch)
        self._y = [np.empty(layer.outputs * batch, self.dtype) for layer in layers]
        self._dy = [np.empty_like(y) for y in self._y]
        self._nothing = np.empty((0, 0), self.dtype)

    def initialise(self, parameters: Arena, seed: int) -> None:
        """Fill `parameters` with the beginning that `seed` names, the same on every rank and machine. Local.

        Each tensor has a random stream of its own, by name. Drawn in float64, so that float32 and float64
        networks begin alike, and from raw output, the part of NumPy's generators that never changes.
        """
        for layer in self.layers:
            for name, shape in layer.shapes.items():
                stream = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),))
                raw = np.random.Philox(stream).random_raw(shape)
                parameters[name][...] = ((raw >> np.uint64(11)) * 2.0**-52 - 1) * layer.spread(name)

    def gradient(self, parameters: Arena, batch, gradient: Arena) -> float:
        """The mean loss over `batch` (x_in [inputs, n], labels [n]); overwrites `gradient`. Local."""
        x = batch.x_in
        n = x.shape[1]
        outputs = self._forward(parameters, x)
        errors = [self._view(dy, layer, n) for dy, layer in zip(self._dy, self.layers, strict=True)]
        loss = self._loss.gradient(outputs[-1], batch.labels, errors[-1])
        for i in reversed(range(len(self.layers))):
            below, error_below = (outputs[i - 1], errors[i - 1]) if i else (x, self._nothing)
            self.layers[i].backward(parameters, below, outputs[i], errors[i], gradient, error_below)
        return loss

    def score(self, parameters: Arena, batch) -> tuple[float, int]:
        """The sum of the losses over `batch`, and how many of its examples are classified rightly. Local."""
        return self._loss.score(self._forward(parameters, batch.x_in)[-1], batch.labels)

    def flops(self, examples: int) -> float:
        """Floating-point operations of one forward pass over `examples`; a gradient takes three times that."""
        return sum(layer.flops(examples) for layer in self.layers)

    def _forward(self, parameters: Arena, x: np.ndarray) -> list[np.ndarray]:
        n = x.shape[1]
        if n > self.batch:
            raise ValueError(f"a batch of {n} examples, the network was built for up to {self.batch}")
        outputs = []
        for layer, y in zip(self.layers, self._y, strict=True):
            outputs.append(self._view(y, layer, n))
            layer.forward(parameters, x, outputs[-1])
            x = outputs[-1]
        return outputs

    @staticmethod
    def _view(flat: np.ndarray, layer: Dense, n: int) -> np.ndarray:
        """The first outputs * n elements as [outputs, n]: contiguous for a smaller last batch too."""
        return flat[: layer.outputs * n].reshape(layer.outputs, n)
