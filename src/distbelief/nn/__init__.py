"""Networks on one rank: the arena of parameters, layers, losses, and chains of them."""

from distbelief.nn.arena import Arena, Layout, Tensor
from distbelief.nn.build import build
from distbelief.nn.layers import Convolution, Dense, Layer, LocallyConnected, Normalise, Pool, Shape
from distbelief.nn.losses import LOSSES, Loss, OneVsAllLogistic, SoftmaxCrossEntropy, SquaredError
from distbelief.nn.memory import Memory
from distbelief.nn.network import Network
from distbelief.nn.specs import ConvolutionSpec, DenseSpec, Inputs, LayerSpec, LocalSpec, NormaliseSpec, PoolSpec

__all__ = [
    "LOSSES",
    "Arena",
    "Convolution",
    "ConvolutionSpec",
    "Dense",
    "DenseSpec",
    "Inputs",
    "Layer",
    "LayerSpec",
    "Layout",
    "LocalSpec",
    "LocallyConnected",
    "Loss",
    "Memory",
    "Network",
    "Normalise",
    "NormaliseSpec",
    "OneVsAllLogistic",
    "Pool",
    "PoolSpec",
    "Shape",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "Tensor",
    "build",
]
