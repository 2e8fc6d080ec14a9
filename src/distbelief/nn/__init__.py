"""Networks on one rank: the arena of parameters, layers, losses, and chains of them."""

from distbelief.nn.accrual import Accrual
from distbelief.nn.arena import Arena, Layout, Tensor
from distbelief.nn.bfloat16 import holding
from distbelief.nn.build import build
from distbelief.nn.layers import (
    BFLOAT16,
    Convolution,
    Dense,
    DenseBfloat16,
    Layer,
    LocallyConnected,
    LocallyConnectedBfloat16,
    Normalise,
    Pool,
    Shape,
)
from distbelief.nn.losses import LOSSES, Loss, OneVsAllLogistic, SoftmaxCrossEntropy, SquaredError
from distbelief.nn.memory import Memory
from distbelief.nn.network import Network
from distbelief.nn.specs import ConvolutionSpec, DenseSpec, Inputs, LayerSpec, LocalSpec, NormaliseSpec, PoolSpec

__all__ = [
    "BFLOAT16",
    "LOSSES",
    "Accrual",
    "Arena",
    "Convolution",
    "ConvolutionSpec",
    "Dense",
    "DenseBfloat16",
    "DenseSpec",
    "Inputs",
    "Layer",
    "LayerSpec",
    "Layout",
    "LocalSpec",
    "LocallyConnected",
    "LocallyConnectedBfloat16",
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
    "holding",
]
