"""Before training: a batch method needs a gradient that is the same each time."""

import math
from itertools import islice

import numpy as np

from distbelief.algorithms.model import Problem
from distbelief.errors import UserError
from distbelief.nn.arena import Arena


def expect_no_chance(problem: Problem) -> None:
    """Take a gradient twice, on the same examples at the initial parameters. Local.

    Raises UserError if the two differ beyond rounding, or the loss is not finite.
    """
    model = problem.model()
    name = getattr(model, "name", type(model).__name__)
    parameters = Arena(model.layout, model.dtype)
    model.initialise(parameters, problem.seed)
    examples = problem.examples()
    few = np.arange(min(len(examples), 8))
    losses, gradients = [], []
    for _ in range(2):
        gradient = Arena(model.layout, model.dtype)
        (batch,) = islice(examples.read(few), 1)
        losses.append(model.gradient(parameters, batch, gradient))
        gradients.append(gradient.flat)
    if not math.isfinite(losses[0]):
        raise UserError(f"{name}: the loss is {losses[0]:g} at the initial parameters, expected a finite number")
    tolerance = math.sqrt(np.finfo(model.dtype).eps)
    apart = np.linalg.norm(gradients[0] - gradients[1])
    if abs(losses[0] - losses[1]) > tolerance * abs(losses[0]) or apart > tolerance * np.linalg.norm(gradients[0]):
        raise UserError(
            f"{name}: two gradients of the same examples at the same parameters differ (losses {losses[0]:.6g} and "
            f"{losses[1]:.6g}); Sandblaster expects a model without chance"
        )
