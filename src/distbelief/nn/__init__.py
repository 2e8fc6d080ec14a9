"""Networks on one rank: the arena of parameters, layers, losses, and chains of them."""

from distbelief.nn.arena import Arena, Layout, Tensor
from distbelief.nn.layers import Dense
from distbelief.nn.losses import SoftmaxCrossEntropy
from distbelief.nn.network import Network

__all__ = ["Arena", "Dense", "Layout", "Network", "SoftmaxCrossEntropy", "Tensor"]
