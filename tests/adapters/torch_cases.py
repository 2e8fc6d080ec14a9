"""A torch.nn.Module and a minibatch, as the tests of the adapter need them. Without PyTorch these are skipped."""

import numpy as np
import pytest

from distbelief.adapters.torch_module import TorchModel
from distbelief.nn import Arena, Layout

try:
    import torch
    from torch import nn
except ImportError:
    torch = nn = None

needs_torch = pytest.mark.skipif(torch is None, reason="no PyTorch")


def convolutional() -> "nn.Module":
    """Of several kinds of layers, one parameter that no loss depends on, and one that is frozen."""
    module = nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)),
        nn.Conv2d(1, 3, 3),
        nn.GroupNorm(1, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 8, bias=False),
        nn.Tanh(),
        nn.Linear(8, 4),
    )
    module.unused = nn.Parameter(torch.ones(2, 3))
    module[7].bias.requires_grad_(False)
    return module


def right(outputs, target):
    return (outputs.argmax(1) == target).sum()


def a_batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(10, 36)), random.integers(0, 4, 10)


def initialised(model: TorchModel, seed: int = 1) -> Arena:
    parameters = Arena(Layout(model.tensors), model.dtype)
    model.initialise(parameters, seed)
    return parameters
