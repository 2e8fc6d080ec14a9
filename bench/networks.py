"""The networks whose steps are measured: the speech and the image network of the paper, and one stage of the latter."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from distbelief.nn import LOSSES, Arena, Network, build
from distbelief.nn.specs import DenseSpec, LayerSpec, LocalSpec, NormaliseSpec, PoolSpec


@dataclass(frozen=True)
class Described:
    """A network before it has memory."""

    words: str
    inputs: int | tuple[int, int, int]
    layers: list[LayerSpec]
    loss: str


def speech(width: int = 2560, classes: int = 8192) -> Described:
    """11 frames of 40 log energies, 4 hidden layers of sigmoids, softmax (Dean et al. 2012, section 5)."""
    hidden = [DenseSpec(width, "sigmoid") for _ in range(4)]
    return Described("speech network", 440, [*hidden, DenseSpec(classes)], "softmax")


def image(side: int = 100, classes: int = 21_841) -> Described:
    """Three stages of 10x10 filters with untied weights and 8 maps, one-vs-all logistic outputs (section 5).

    The paper leaves strides, windows of pooling and normalisation, and the third stage's filters open: ours shrink an
    image of 100 x 100 to 5 x 5.
    """
    stages = []
    for filters, pool, around in [(10, 5, 5), (10, 5, 5), (5, 3, 3)]:
        stages += [LocalSpec(8, filters), PoolSpec(pool, 2), NormaliseSpec(around)]
    return Described("image network", (side, side, 3), [*stages, DenseSpec(classes)], "logistic")


def stage(side: int = 32) -> Described:
    """One stage on 8 maps: filters, L2 pooling, local contrast normalisation, and a squared error to begin with."""
    return Described("image stage", (side, side, 8), [LocalSpec(16, 10), PoolSpec(3, 2), NormaliseSpec(5)], "squared")


# Of each network, the one that is measured, and a small one of the same kind for a quick run.
NETWORKS = {
    "speech": (speech, lambda: speech(64, 100)),
    "image": (image, lambda: image(80, 50)),
    "stage": (stage, lambda: stage(24)),
}


class Step:
    """A network with parameters, a gradient and a random minibatch: all that one step of training touches."""

    def __init__(self, described: Described, batch: int, dtype: str, held: str | None = None):
        """`held`: as nn.Network has it."""
        layers = build(described.layers, described.inputs)
        self.loss = described.loss
        self.network = Network(layers, batch, dtype, LOSSES[described.loss](), held=held)
        self.parameters = Arena(self.network.layout, self.network.held)
        self.gradient = Arena(self.network.layout, self.network.dtype)
        self.network.initialise(self.parameters, seed=0)
        random = np.random.default_rng(0)
        x = random.standard_normal((math.prod(layers[0].below), batch), np.float32)
        labels = random.integers(0, self.network.classes, batch)
        if described.loss == "squared":
            labels = random.standard_normal((self.network.classes, batch), np.float32)
        self.batch = SimpleNamespace(x_in=x, labels=labels, size=batch)

    def __call__(self) -> float:
        """Forward and backward; the loss."""
        return self.network.gradient(self.parameters, self.batch, self.gradient)
