"""The layers of a network, each in a file of its own; `layer` says what they have in common."""

from distbelief.nn.layers.convolution import Convolution
from distbelief.nn.layers.dense import Dense
from distbelief.nn.layers.dense_bfloat16 import BFLOAT16, DenseBfloat16
from distbelief.nn.layers.layer import Accruing, Layer, Shape
from distbelief.nn.layers.local import LocallyConnected
from distbelief.nn.layers.local_bfloat16 import LocallyConnectedBfloat16
from distbelief.nn.layers.normalisation import Normalise
from distbelief.nn.layers.pooling import Pool

__all__ = [
    "BFLOAT16",
    "Accruing",
    "Convolution",
    "Dense",
    "DenseBfloat16",
    "Layer",
    "LocallyConnected",
    "LocallyConnectedBfloat16",
    "Normalise",
    "Pool",
    "Shape",
]
