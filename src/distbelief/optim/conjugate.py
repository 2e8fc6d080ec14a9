"""Nonlinear conjugate gradients, over the same commands as L-BFGS."""

import time
from collections.abc import Callable

import msgspec

from distbelief.optim.course import VECTORS, Course
from distbelief.optim.descent import Direction, Length, descend, steepest
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
        self._square = 0.0  # of the gradient
        self._before: float | None = None  # of the gradient where DIRECTION began; None: begin again

    def propose(self, form: list[Command], gradient_norm: float) -> Direction:
        self._square = gradient_norm**2
        if self._before is None:
            return steepest(gradient_norm)
        ((across, along),) = self._space.run([Dots((GRADIENT,), (PREVIOUS, DIRECTION))])[0]
        beta = max(0.0, (self._square - float(across)) / self._before)
        make = Combine(DIRECTION, (beta, -1.0), (DIRECTION, GRADIENT))
        return Direction(make, beta * float(along) - self._square, None)

    def follow(self, step: Trial, slope: float) -> list[Command]:
        self._before = self._square
        return []

    def change_batch(self) -> None:
        self._before = None

    def restart(self) -> bool:
        known, self._before = self._before is not None, None
        return known
