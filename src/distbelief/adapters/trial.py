"""Everything that a user's model and data will have to do, once and on a few examples, before training begins."""

import contextlib
import math
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import distbelief
from distbelief.adapters.data import UserProblem
from distbelief.adapters.model import Adapted, Minibatch
from distbelief.algorithms.model import Hook, takes_hooks
from distbelief.errors import UserError
from distbelief.kernels import all_finite
from distbelief.nn.arena import Arena

EXAMPLES = 8

_OURS = str(Path(distbelief.__file__).parent)


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
        return _number(loss, what, "the mean loss of the batch, one number")

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

    def hook(*names: str) -> None:
        for name in names:
            parameters[name]

    return hook


def _number(value: Any, what: str, expected: str) -> float:
    if np.ndim(value) == 0 and hasattr(value, "__float__"):
        with contextlib.suppress(TypeError, ValueError):
            return float(value)
    shape = f" of shape {np.shape(value)}" if np.ndim(value) else ""
    raise UserError(f"{what} returned a {type(value).__name__}{shape}, expected {expected}")


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
        words = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}" if str(error) else type(error).__name__
        if isinstance(error, KeyError) and model is not None:
            words += f"; the tensors are: {', '.join(model.layout.shapes)}"
        raise UserError(f"{what}: {words}{_place(error)}") from error


def _place(error: Exception) -> str:
    """The file and line of a user's code where `error` came from, in brackets; nothing if none of theirs ran."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(_OURS) and "site-packages" not in f.filename]
    return f" ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else ""
