"""Networks on one rank: the arena of parameters, layers, losses, and chains of them."""

from distbelief.nn.arena import Arena, Layout, Tensor
from distbelief.nn.build import build
from distbelief.nn.layers import Dense, Layer, Shape
from distbelief.nn.losses import Loss, SoftmaxCrossEntropy
from distbelief.nn.memory import Memory
from distbelief.nn.network import Network
from distbelief.nn.specs import DenseSpec, LayerSpec

__all__ = [
    "Arena",
    "Dense",
    "DenseSpec",
    "Layer",
    "LayerSpec",
    "Layout",
    "Loss",
    "Memory",
    "Network",
    "Shape",
    "SoftmaxCrossEntropy",
    "Tensor",
    "build",
]
