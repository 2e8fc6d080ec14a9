"""A model that a user writes, and what makes it one that the algorithms know (algorithms.model.Model)."""

import operator
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from distbelief.adapters.blame import blame, number
from distbelief.algorithms.model import Hook, takes_hooks
from distbelief.errors import UserError
from distbelief.nn.arena import Arena, Layout, Misfit

Shape = int | tuple[int, ...]

LOSS = "the mean loss of the batch, one number"
"""What a gradient is to return."""

_EXAMPLE = "expected names and shapes such as {'w': (10, 64), 'b': (10,)}"


class Model:
    """A model that a user writes, to inherit from: named tensors, and the gradient of a loss by them.

    Set `tensors`, and `dtype` if it is not float32; write `gradient`, and `initialise` unless zeros will do. There
    may also be methods

        score(parameters, batch) -> (sum of the losses over the batch, how many of its examples are right, or None)
        flops(examples) -> floating-point operations of `score`, for virtual time

    Without `score`, evaluations take the loss that `gradient` returns, and there is no accuracy.
    """

    tensors: Mapping[str, Shape] | Iterable[tuple[str, Shape]]
    """Names and shapes; the same on every rank."""
    dtype: Any = np.float32
    """Of parameters and gradients: float32 or float64."""

    def initialise(self, parameters: Arena, seed: int) -> None:
        """Fill `parameters`, the same on every rank: here with zeros. Local."""
        parameters.flat[:] = 0

    def gradient(self, parameters: Arena, batch: Any, gradient: Arena) -> float:
        """Overwrite `gradient` with that of the mean loss over `batch`, and return that loss. Local.

        `parameters[name]`, `gradient[name]` are arrays of the declared shapes; `gradient[name] = values` copies, and
        `gradient.flat` is all of them as one vector. `parameters` are to be read only. A model that goes layer by
        layer may take two more arguments, needed and produced (algorithms.model.Model.gradient).
        """
        raise NotImplementedError("a model has to have a gradient")


class Minibatch(NamedTuple):
    """Examples as the algorithms see them.

    rows: int64 [n], their numbers.
    content: what the data gives for them; what a user's model sees.
    """

    rows: np.ndarray
    content: Any

    @property
    def size(self) -> int:
        return len(self.rows)


class Adapted:
    """A user's model with what the algorithms need of one besides (algorithms.model.Model). All methods are Local."""

    def __init__(self, model: Any):
        """Raises UserError if its tensors or its dtype are no such thing."""
        self.model = model
        self.name = type(model).__name__
        self.layout = _layout(model, self.name)
        self.dtype = _dtype(model, self.name)
        self._unused: Arena | None = None
        if takes_hooks(getattr(model, "gradient", None)):
            self.gradient = self._gradient_by_layers

    def initialise(self, parameters: Arena, seed: int) -> None:
        if hasattr(self.model, "initialise"):
            self.model.initialise(parameters, seed)
        else:
            parameters.flat[:] = 0

    def gradient(self, parameters: Arena, batch: Minibatch, gradient: Arena) -> float:
        """Raises UserError if what the model gives does not fit what it has declared; its own exceptions pass."""
        return self._taken_in(parameters, batch.content, gradient)

    def _gradient_by_layers(
        self,
        parameters: Arena,
        batch: Minibatch,
        gradient: Arena,
        needed: Hook | None = None,
        produced: Hook | None = None,
    ) -> float:
        return self._taken_in(parameters, batch.content, gradient, needed, produced)

    def _taken_in(self, *arguments: Any) -> float:
        what = f"{self.name}.gradient"
        try:
            loss = self.model.gradient(*arguments)
        except Misfit as error:
            raise blame(what, error, self.layout) from error
        return number(loss, what, LOSS)

    def score(self, parameters: Arena, batch: Minibatch) -> tuple[float, float | None]:
        if hasattr(self.model, "score"):
            what = f"{self.name}.score"
            try:
                scored = self.model.score(parameters, batch.content)
            except Misfit as error:
                raise blame(what, error, self.layout) from error
            if not isinstance(scored, tuple) or len(scored) != 2:
                raise UserError(
                    f"{what}: {scored!r:.80}, expected two: the sum of the losses, and how many are right, or None"
                )
            loss, right = scored
            loss = number(loss, what, "the sum of the losses, one number")
            return loss, None if right is None else number(right, what, "how many examples are right, one number")
        if self._unused is None:
            self._unused = Arena(self.layout, self.dtype)
        return self.gradient(parameters, batch, self._unused) * batch.size, None

    def flops(self, examples: int) -> float:
        """What the model says, or else a multiplication and an addition for every parameter and example."""
        return self.model.flops(examples) if hasattr(self.model, "flops") else 2.0 * self.layout.size * examples


def _layout(model: Any, owner: str) -> Layout:
    declared = getattr(model, "tensors", None)
    if declared is None:
        if isinstance(getattr(model, "layout", None), Layout):  # an nn.Network
            return model.layout
        raise UserError(f"{owner}.tensors: missing, {_EXAMPLE}")
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        pairs = [(name, shape) for name, shape in (declared.items() if isinstance(declared, Mapping) else declared)]
    except (TypeError, ValueError):
        raise UserError(f"{owner}.tensors: {declared!r}, {_EXAMPLE}") from None
    for name, shape in pairs:
        if not isinstance(name, str) or not name or not name.isprintable():
            raise UserError(f"{owner}.tensors: {name!r} as a name, {_EXAMPLE}")
        if name in shapes:
            raise UserError(f"{owner}.tensors: {name} twice, expected every name once")
        shapes[name] = _shape(shape, f"{owner}.tensors: {name}")
    if not shapes:
        raise UserError(f"{owner}.tensors: empty, {_EXAMPLE}")
    return Layout(shapes)


def _shape(shape: Any, owner: str) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in (shape if isinstance(shape, Iterable) else (shape,)))
    except TypeError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise UserError(f"{owner} has shape {shape!r}, expected whole numbers from 1 on")
    return sizes


def _dtype(model: Any, owner: str) -> np.dtype:
    declared = getattr(model, "dtype", np.float32)
    try:
        dtype = np.dtype(declared)
        if dtype in (np.float32, np.float64):
            return dtype
    except TypeError:  # not a dtype at all
        pass
    raise UserError(f"{owner}.dtype: {declared}, expected float32 or float64")
