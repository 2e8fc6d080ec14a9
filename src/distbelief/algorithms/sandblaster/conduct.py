"""What the coordinator does, in the order in which it does it: plain blocking code over an objective.

The objective is spread over shards and replicas (`Coordinator`), or in this process (`Alone`).
"""

import math
from collections.abc import Callable
from typing import Protocol

from distbelief.algorithms.progress import BatchEvaluation, Evaluation, Fault, Listener, Progress
from distbelief.algorithms.sandblaster.accounts import Accounts
from distbelief.algorithms.sandblaster.batches import Batches
from distbelief.algorithms.settings import Evaluate
from distbelief.errors import UserError
from distbelief.optim.method import Evaluation as Step
from distbelief.optim.method import Method, StopRules
from distbelief.optim.space import PARAMETERS, Space, copy

GOOD = "good"
"""The vector of the last parameters whose loss on the held-out examples was finite."""


class Objective(Protocol):
    """The loss over a batch, its vectors, and the loss over the held-out examples."""

    space: Space
    accounts: Accounts
    """Of the latest evaluation."""

    def evaluate(self, batch: list[int]) -> float:
        """The mean loss over the portions `batch` at PARAMETERS; leaves its gradient in GRADIENT. Blocking."""
        ...

    def score(self) -> tuple[float, float | None]:
        """Mean loss and accuracy over the held-out examples at PARAMETERS. Blocking."""
        ...


class Conductor:
    """One run of a batch method. All methods are Local."""

    def __init__(
        self,
        objective: Objective,
        method: Method,
        batches: Batches,
        stop: StopRules,
        evaluate: Evaluate,
        listener: Listener,
        clock: Callable[[], float],
        vector_bytes: int,
    ):
        """`vector_bytes`: of all parameters."""
        self._objective = objective
        self._method = method
        self._batches = batches
        self._stop = stop
        self._every = evaluate.every_examples or math.inf
        self._mark = self._every  # examples at which the parameters are tried next
        self._listener = listener
        self._clock = clock
        self._vector_bytes = vector_bytes
        self._began = clock()
        self._examples = self._evaluations = self._steps = self._bytes_shipped = 0
        self._loss: float | None = None
        self._scored_at = -1  # evaluations
        self.latest: Evaluation | None = None
        """The latest on the held-out examples, of the parameters in GOOD."""
        self.fault: Fault | UserError | None = None
        """Why it failed, if it did."""
        self.reason = ""
        """Why the method stopped."""

    def run(self) -> None:
        """From the parameters in PARAMETERS to the last good ones, which are then there, too."""
        space = self._objective.space
        space.run([copy(GOOD, PARAMETERS)])
        try:
            self._score()
            result = self._method.minimise(space, self._evaluate, self._stop, self._note, self._advance, self._clock)
            self.reason = result.reason
            self._score()
        except UserError as error:
            self.fault = error
        space.run([copy(PARAMETERS, GOOD)])

    def _evaluate(self) -> float:
        return self._objective.evaluate(self._batches.current)

    def _note(self, step: Step) -> None:
        """Tell of an evaluation by the method."""
        accounts = self._objective.accounts
        self._evaluations = step.number
        self._examples += accounts.examples
        self._bytes_shipped += accounts.shipments * self._vector_bytes
        self._loss = step.loss
        self._listener.batch_evaluated(
            BatchEvaluation(
                time=self._seconds(),
                evaluation=step.number,
                iteration=step.iteration,
                loss=step.loss,
                gradient_norm=step.gradient_norm,
                step_length=step.step,
                examples=accounts.examples,
                seconds=accounts.seconds,
                portions=accounts.portions,
                backups_issued=accounts.backups_issued,
                backups_won=accounts.backups_won,
                given_up=accounts.given_up,
                seconds_idle=accounts.seconds_idle,
                bytes_fetched=accounts.bytes_fetched,
                bytes_shipped=self._bytes_shipped,
            )
        )
        self._listener.progress(Progress(self._seconds(), step.number, self._examples, step.loss))

    def _advance(self) -> bool:
        """After each accepted step: try the parameters now and then, and change the batch."""
        self._steps += 1
        if self._examples >= self._mark:
            self._mark = (self._examples // self._every + 1) * self._every
            self._score()
        return self._batches.advance(self._steps)

    def _score(self) -> None:
        """Try the parameters on the held-out examples, and keep them. Raises UserError if the loss is not finite."""
        if self._scored_at == self._evaluations:
            return
        self._scored_at = self._evaluations
        seconds = self._seconds()
        loss, accuracy = self._objective.score()
        if not math.isfinite(loss):
            raise UserError(str(Fault(None, self._steps, loss)))
        self._objective.space.run([copy(GOOD, PARAMETERS)])
        accounts = self._objective.accounts
        self.latest = Evaluation(
            time=seconds,
            step=self._steps,
            examples=self._examples,
            loss=loss,
            accuracy=accuracy,
            train_loss=self._loss,
            examples_per_s=self._examples / max(seconds, 1e-9),
            bytes_fetched=accounts.bytes_fetched if accounts else 0,
            bytes_pushed=self._bytes_shipped,
        )
        self._listener.evaluated(self.latest)

    def _seconds(self) -> float:
        return self._clock() - self._began
