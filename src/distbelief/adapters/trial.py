"""Everything that a user's model and data will have to do, once and on a few examples, before training begins."""

import contextlib
import math
from collections.abc import Iterator

import numpy as np

from distbelief.adapters.blame import blame, number
from distbelief.adapters.data import UserProblem
from distbelief.adapters.model import LOSS, Adapted, Minibatch
from distbelief.algorithms.model import Hook, takes_hooks
from distbelief.errors import UserError
from distbelief.kernels import all_finite
from distbelief.nn.arena import Arena

EXAMPLES = 8


def try_out(problem: UserProblem, replica: int, replicas: int) -> None:
    """Take a gradient on `replica`'s first examples, and score the first of those held out. Local.

    Raises UserError, one line, if anything fails: if numbers are not finite, or tensors not those declared.
    """
    part = problem.batches(replica, replicas)
    with _blaming("model"):
        model = problem.model()
    parameters = Arena(model.layout, model.dtype)
    with _blaming(f"{model.name}.initialise", model):
        model.initialise(parameters, problem.seed)
    if broken := _not_finite(parameters):
        raise UserError(f"{model.name}.initialise: NaN or infinity in tensor {broken}, expected finite numbers")
    with _blaming("data"):
        batch = part.first(EXAMPLES)
    _try_gradient(model, parameters, batch)
    with _blaming("held_out"):
        batch = problem.held_out_part().first(EXAMPLES)
    _try_score(model, parameters, batch)


def _try_gradient(model: Adapted, parameters: Arena, batch: Minibatch) -> None:
    what = f"{model.name}.gradient"
    gradient = Arena(model.layout, model.dtype)
    before = parameters.flat.copy()

    def take(beginning: float) -> float:
        gradient.flat[:] = beginning
        with _blaming(what, model):
            hooks = [_names_in(parameters)] * 2 if takes_hooks(model.model.gradient) else []
            loss = model.model.gradient(parameters, batch.content, gradient, *hooks)
        return number(loss, what, LOSS)

    loss = take(math.nan)
    if not np.array_equal(parameters.flat, before):
        raise UserError(f"{what} changed the parameters, expected it to write into the gradient alone")
    if not math.isfinite(loss):
        raise UserError(f"{what}: the loss is {loss:g} at the initial parameters, expected a finite number")
    if broken := _not_finite(gradient):
        take(0.0)
        if _not_finite(gradient):
            raise UserError(f"{what}: NaN or infinity in tensor {broken} at the initial parameters")
        raise UserError(
            f"{what}: tensor {broken} is not overwritten whole; if gradients are added up, begin with "
            "gradient.flat[:] = 0"
        )


def _try_score(model: Adapted, parameters: Arena, batch: Minibatch) -> None:
    what = f"{model.name}.{'score' if hasattr(model.model, 'score') else 'gradient'}"
    with _blaming(what, model):
        loss, right = model.score(parameters, batch)
    if not math.isfinite(loss):
        raise UserError(f"{what}: the loss is {loss:g} on held-out examples at the initial parameters")
    if right is not None and not 0 <= right <= batch.size:
        raise UserError(f"{what}: {right:g} of {batch.size} examples are right, expected 0 to {batch.size}, or None")


def _names_in(parameters: Arena) -> Hook:
    """A hook that looks at the names it is called with: KeyError for one that is no tensor's."""

    def hook(*names: str, finite: bool = False) -> None:
        for name in names:
            parameters[name]

    return hook


def _not_finite(arena: Arena) -> str | None:
    """The first tensor that has a NaN or infinity."""
    if all_finite(arena.flat):
        return None
    return next(name for name in arena if not np.isfinite(arena[name]).all())


@contextlib.contextmanager
def _blaming(what: str, model: Adapted | None = None) -> Iterator[None]:
    """Make one line of whatever exception a user's code raises: what failed, how, and where."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise blame(what, error, None if model is None else model.layout) from error
