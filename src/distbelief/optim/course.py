"""The course of one minimisation: evaluations and line searches, counted, told, and ended by the stop rules."""

import math
from collections.abc import Callable, Sequence

from distbelief.errors import UserError
from distbelief.optim.line_search import LineSearch, Trial
from distbelief.optim.method import Evaluation, Listener, Reason, Result, StopRules
from distbelief.optim.space import (
    DIRECTION,
    GRADIENT,
    ORIGIN,
    PARAMETERS,
    PREVIOUS,
    Advance,
    Combine,
    Command,
    Dots,
    Evaluate,
    Space,
    Swap,
    copy,
)

VECTORS = (PARAMETERS, GRADIENT, ORIGIN, PREVIOUS, DIRECTION)
"""What a line search works on."""


class Course:
    """Where a minimisation stands. Between line searches the point is in PARAMETERS, its gradient in GRADIENT; ORIGIN
    and PREVIOUS are the point and the gradient before the last accepted step, DIRECTION its direction."""

    def __init__(
        self,
        space: Space,
        evaluate: Evaluate,
        stop: StopRules,
        listener: Listener,
        advance: Advance | None,
        clock: Callable[[], float],
    ):
        """Evaluates the objective at PARAMETERS. Raises UserError if that is not finite."""
        self._space = space
        self._evaluate = evaluate
        self._stop = stop
        self._listener = listener
        self._advance = advance
        self._clock = clock
        self._began = clock()
        self._iterations = 0
        self._evaluations = 0
        self.reason: Reason | None = None
        """Why the course is at its end; None: it is not."""
        self.begin()

    @property
    def result(self) -> Result:
        assert self.reason is not None
        return Result(self.loss, self.gradient_norm, self._iterations, self._evaluations, self.reason)

    def begin(self) -> None:
        """Evaluate where no step led: at the first point, or again where the batch has changed."""
        self.loss = self._evaluate()
        ((square,),) = self._space.run([Dots((GRADIENT,), (GRADIENT,))])[0]
        self.gradient_norm = math.sqrt(square)
        self._tell(self.loss, self.gradient_norm, 0.0)
        if not (math.isfinite(self.loss) and math.isfinite(self.gradient_norm)):
            raise UserError(
                f"evaluation {self._evaluations}: a loss of {self.loss:g} with a gradient of norm "
                f"{self.gradient_norm:g} at the point where a line search begins, expected finite numbers"
            )
        self._judge_gradient()

    def search(self, line_search: LineSearch, make: Command, slope: float, first: float) -> Trial | None:
        """Search along DIRECTION, which the command `make` makes in the message of the first trial; its slope is known.

        Returns the accepted step; PARAMETERS and GRADIENT are at its end. Or None: with `reason` set, PARAMETERS are
        at the best point tried; without, the line search has failed, and all is as before.
        """
        prelude = [make, copy(ORIGIN, PARAMETERS), Swap(GRADIENT, PREVIOUS)]
        tried = {0.0: (self.loss, self.gradient_norm)}
        search = line_search.search(self.loss, slope, first)
        step = next(search)
        while True:
            trial, norm = self._try(step, prelude)
            prelude = []
            if trial.finite:
                tried[step] = trial.loss, norm
            try:
                step = search.send(trial)
            except StopIteration as end:
                accepted = end.value
                break
            if self._is_spent():
                self._settle(min(tried, key=tried.get), tried)
                return None
        if accepted is None:
            self._space.run([copy(PARAMETERS, ORIGIN), Swap(GRADIENT, PREVIOUS)])
            return None
        if accepted != trial.step:  # the best of the trials was not the last
            if self._is_spent():
                self._settle(accepted, tried)
                return None
            trial, norm = self._try(accepted, [])
        self._accept(trial, norm)
        return trial

    def batch_changes(self) -> bool:
        """Ask whether the batch changes after the accepted step. Then `begin` again."""
        return self.reason is None and self._advance is not None and self._advance()

    def _try(self, step: float, prelude: Sequence[Command]) -> tuple[Trial, float]:
        """Evaluate at a step along DIRECTION from ORIGIN; also gives the gradient's norm there."""
        self._space.run([*prelude, _step_to(step, PARAMETERS if prelude else ORIGIN)])
        loss = self._evaluate()
        ((slope, square),) = self._space.run([Dots((GRADIENT,), (DIRECTION, GRADIENT))])[0]
        norm = math.sqrt(square)
        self._tell(loss, norm, step)
        return Trial(step, loss, float(slope)), norm

    def _tell(self, loss: float, norm: float, step: float) -> None:
        self._evaluations += 1
        seconds = self._clock() - self._began
        self._listener(Evaluation(self._evaluations, self._iterations, loss, norm, step, seconds))

    def _accept(self, trial: Trial, norm: float) -> None:
        decrease = (self.loss - trial.loss) / max(abs(self.loss), abs(trial.loss), 1.0)
        self._iterations += 1
        self.loss, self.gradient_norm = trial.loss, norm
        self._judge_gradient()
        if self.reason is None and self._stop.relative_decrease is not None:
            if decrease <= self._stop.relative_decrease:
                self.reason = "relative decrease"
        self._is_spent()

    def _settle(self, step: float, tried: dict[float, tuple[float, float]]) -> None:
        """End at a step that was tried."""
        self.loss, self.gradient_norm = tried[step]
        self._iterations += step > 0
        self._space.run([_step_to(step, ORIGIN)])

    def _judge_gradient(self) -> None:
        if self._stop.gradient_norm is not None and self.gradient_norm <= self._stop.gradient_norm:
            self.reason = "gradient norm"
        self._is_spent()

    def _is_spent(self) -> bool:
        """Whether evaluations or seconds are used up, if nothing has ended the course before."""
        if self.reason is None and self._evaluations >= (self._stop.evaluations or math.inf):
            self.reason = "evaluations"
        if self.reason is None and self._clock() - self._began >= (self._stop.seconds or math.inf):
            self.reason = "seconds"
        return self.reason is not None


def _step_to(step: float, origin: str) -> Combine:
    """In place from PARAMETERS, where they are still the origin."""
    return Combine(PARAMETERS, (1.0, step), (origin, DIRECTION))
