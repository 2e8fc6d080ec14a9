"""Nonlinear conjugate gradients, over the same commands as L-BFGS."""

import time
from collections.abc import Callable

import msgspec

from distbelief.optim.course import VECTORS, Course
from distbelief.optim.descent import Direction, Length, descend, first_step, steepest
from distbelief.optim.line_search import LineSearch, StrongWolfe, Trial
from distbelief.optim.method import Listener, Result, StopRules, ignore
from distbelief.optim.space import DIRECTION, GRADIENT, PREVIOUS, Advance, Combine, Command, Dots, Evaluate, Space


class ConjugateGradients(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="conjugate"):
    """Nonlinear conjugate gradients (Polak and Ribiere, beta never negative): two messages for a direction.

    Begins again at the steepest descent where the direction does not descend and where the batch changes.
    """

    line_search: LineSearch = StrongWolfe(c2=0.1)
    initial_step: Length = 1.0
    """Euclidean length of the first step to try."""

    @property
    def vectors(self) -> tuple[str, ...]:
        """See `Method.vectors`."""
        return VECTORS

    def minimise(
        self,
        space: Space,
        evaluate: Evaluate,
        stop: StopRules,
        listener: Listener = ignore,
        advance: Advance | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Result:
        """See `Method.minimise`."""
        course = Course(space, evaluate, stop, listener, advance, clock)
        return descend(course, space, _Conjugate(space), self.line_search, self.initial_step)


class _Conjugate:
    """direction = beta direction - gradient (Nocedal and Wright 2006, eq. 5.45)."""

    def __init__(self, space: Space):
        self._space = space
        self._square: float | None = None  # of the gradient where DIRECTION began; None: begin again
        self._last: tuple[float, float] | None = None

    def propose(self, form: list[Command], gradient_norm: float) -> Direction:
        before, self._square = self._square, gradient_norm**2
        if before is None:
            return steepest(gradient_norm, first_step(self._last, -(gradient_norm**2)))
        ((across, along),) = self._space.run([Dots((GRADIENT,), (PREVIOUS, DIRECTION))])[0]
        beta = max(0.0, (self._square - float(across)) / before)
        slope = beta * float(along) - self._square
        make = Combine(DIRECTION, (beta, -1.0), (DIRECTION, GRADIENT))
        return Direction(make, slope, first_step(self._last, slope))

    def follow(self, step: Trial, slope: float) -> list[Command]:
        self._last = step.step, slope
        return []

    def change_batch(self) -> None:
        self._square = None

    def restart(self) -> bool:
        """The gradient's square stays, as that of the steepest descent which now begins."""
        known, self._last = self._last is not None, None
        self._square = None
        return known
