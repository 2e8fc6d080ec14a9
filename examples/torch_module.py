"""A torch.nn.Module, trained by Downpour SGD on the two moons. Needs the extra: pip install 'distbelief[torch]'.

python examples/torch_module.py                  serially
mpirun -n 3 python examples/torch_module.py      by Downpour: one rank holds the parameters, two train
"""

import numpy as np
import torch
from torch import nn

from distbelief import Adagrad, Downpour, Stop, train
from distbelief.adapters.torch_module import TorchModel


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))


def moons(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, 2] on two half circles that reach into each other, with noise, and which of the two [n]."""
    random = np.random.default_rng(0)
    angle, moon = random.uniform(0, np.pi, examples), random.integers(0, 2, examples)
    x = np.where(moon, 1 - np.cos(angle), np.cos(angle))
    y = np.where(moon, 0.5 - np.sin(angle), np.sin(angle))
    points = np.stack([x, y], axis=1) + random.normal(0, 0.1, (examples, 2))
    return points.astype(np.float32), moon


def main() -> None:
    model = TorchModel(
        network,
        nn.functional.cross_entropy,
        right=lambda outputs, target: (outputs.argmax(1) == target).sum(),
    )
    outcome = train(
        model,
        moons(4000),
        rule=Adagrad(rate=0.05),
        downpour=Downpour(n_fetch=2, n_push=2, warmstart=50),
        stop=Stop(epochs=6),
        held_out=500,
    )
    if outcome.parameters is not None:  # on rank 0
        module = model.with_parameters(outcome.parameters)
        with torch.no_grad():
            left, right = module(torch.tensor([[-1.0, 0.0], [2.0, 0.5]])).argmax(1).tolist()
        print(f"accuracy {outcome.evaluation.accuracy:.3f}; the ends of the moons are of classes {left} and {right}")


if __name__ == "__main__":
    main()
