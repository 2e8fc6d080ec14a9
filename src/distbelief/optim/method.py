"""What batch methods have in common: what they are given, what they tell, when they stop."""

import time
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, Protocol

import msgspec

from distbelief.optim.space import Advance, Evaluate, Space

Reason = Literal["gradient norm", "relative decrease", "evaluations", "seconds", "line search"]
"""Why a method stopped; "line search": not even steepest descent finds a lower loss, beyond rounding."""


class StopRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a batch method ends: whichever comes first; None: never for that reason."""

    gradient_norm: Annotated[float, msgspec.Meta(ge=0)] | None = 1e-5
    """Euclidean norm of the gradient at an accepted point, at most."""
    relative_decrease: Annotated[float, msgspec.Meta(ge=0)] | None = 1e-9
    """(f_k - f_k+1) / max(|f_k|, |f_k+1|, 1) of one iteration, at most."""
    evaluations: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Evaluation(NamedTuple):
    """One evaluation of the objective, as a listener is told."""

    number: int
    """Counted from 1."""
    iteration: int
    """Accepted steps before it."""
    loss: float
    gradient_norm: float
    step: float
    """Length of the step along the direction; 0: no step (the first evaluation; a batch has changed)."""
    seconds: float
    """Since the method began, by its clock."""


Listener = Callable[[Evaluation], None]


def ignore(evaluation: Evaluation) -> None:
    """A listener that does not listen."""


class Result(NamedTuple):
    """How a method ended. The parameters that it ended with are in PARAMETERS."""

    loss: float
    gradient_norm: float
    iterations: int
    evaluations: int
    reason: Reason


class Method(Protocol):
    """A batch method: settings, as they stand in a configuration, and the procedure that they describe."""

    @property
    def vectors(self) -> tuple[str, ...]:
        """The names of the vectors that it works on, PARAMETERS and GRADIENT among them."""
        ...

    def minimise(
        self,
        space: Space,
        evaluate: Evaluate,
        stop: StopRules,
        listener: Listener = ignore,
        advance: Advance | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Result:
        """Minimise the objective, beginning at PARAMETERS. Local: it blocks in `space.run` and `evaluate`.

        `advance`: for a batch that changes; told after each accepted step. When it says that the batch changes, the
        curvature of the step has been taken already, from two gradients of the old batch; the objective is then
        evaluated once more at the same point, on the new one.
        Raises UserError if the loss or gradient at a point where a line search would begin is not finite.
        """
        ...
