"""The loop that all methods share, and the simplest of them, gradient descent."""

import math
import time
from collections.abc import Callable
from typing import Annotated, NamedTuple, Protocol

import msgspec

from distbelief.optim.course import VECTORS, Course
from distbelief.optim.line_search import Armijo, LineSearch, Trial
from distbelief.optim.method import Listener, Result, StopRules, ignore
from distbelief.optim.space import DIRECTION, GRADIENT, Advance, Combine, Command, Evaluate, Space

Length = Annotated[float, msgspec.Meta(gt=0)]


class Direction(NamedTuple):
    """Where to search next."""

    make: Combine
    """The command that makes DIRECTION."""
    slope: float
    """Its dot product with the gradient; the direction is taken only if this is negative."""
    first: float | None
    """The first step to try; None: the direction has no natural length."""


class Directions(Protocol):
    """What one method differs from another by."""

    def propose(self, form: list[Command], gradient_norm: float) -> Direction:
        """At most one message, which begins with `form`: the commands that `follow` asked for."""
        ...

    def follow(self, step: Trial, slope: float) -> list[Command]:
        """A step was accepted, `slope` at its beginning. Gives the commands that keep what is needed of it."""
        ...

    def change_batch(self) -> None:
        """What `follow` asked for has been done; GRADIENT is now that of another batch, PREVIOUS is not."""
        ...

    def restart(self) -> bool:
        """Forget everything but the gradient; False: there was nothing to forget."""
        ...


def descend(
    course: Course, space: Space, directions: Directions, line_search: LineSearch, initial_step: float
) -> Result:
    """Search along one direction after the other, until a stop rule holds or steepest descent fails."""
    form: list[Command] = []
    decrease = 0.0
    while course.reason is None:
        make, slope, first = directions.propose(form, course.gradient_norm)
        if not -math.inf < slope < 0:
            directions.restart()
            make, slope, first = steepest(course.gradient_norm)
        if first is None:
            # Expect the decrease of last time, and a parabola (Nocedal and Wright 2006, eq. 3.60).
            first = 2 * decrease / -slope if decrease > 0 else initial_step / course.gradient_norm
        form, before = [], course.loss
        step = course.search(line_search, make, slope, first)
        if step is not None:
            decrease = before - step.loss
            form = directions.follow(step, slope)
            if course.batch_changes():
                # A pair's gradients are both of the old batch: take their difference before the new one's is there.
                if form:
                    space.run(form)
                form = []
                course.begin()
                directions.change_batch()
        elif course.reason is None and not directions.restart():
            course.reason = "line search"
    return course.result


def steepest(gradient_norm: float) -> Direction:
    return Direction(Combine(DIRECTION, (-1.0,), (GRADIENT,)), -(gradient_norm**2), None)


class GradientDescent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="descent"):
    """Steepest descent with a line search; one message for a direction."""

    line_search: LineSearch = Armijo()
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
        return descend(course, space, _Steepest(), self.line_search, self.initial_step)


class _Steepest:
    def propose(self, form: list[Command], gradient_norm: float) -> Direction:
        return steepest(gradient_norm)

    def follow(self, step: Trial, slope: float) -> list[Command]:
        return []

    def change_batch(self) -> None:
        pass

    def restart(self) -> bool:
        return False
