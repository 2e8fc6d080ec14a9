"""Minibatch SGD in one process: the truth that Downpour is measured against."""

import itertools
import math
import time
from collections.abc import Callable

from distbelief.algorithms.model import Problem
from distbelief.algorithms.progress import Evaluation, Fault, Listener, Outcome, Progress
from distbelief.algorithms.scoring import score
from distbelief.algorithms.settings import Evaluate, Stop
from distbelief.kernels import all_finite
from distbelief.nn.arena import Arena
from distbelief.optim import Constant, Rule, Schedule


def train(
    problem: Problem,
    rule: Rule,
    stop: Stop,
    evaluate: Evaluate,
    listener: Listener,
    clock: Callable[[], float] = time.monotonic,
    schedule: Schedule | None = None,
) -> Outcome:
    """Train on all the data in one process; `schedule` is a factor on the rule's rate, by the step. Local.

    A gradient that is not finite is never applied: it ends training with a Fault, and what is left then are the
    parameters of the last evaluation that was good.
    """
    run = _Run(problem, stop, evaluate, listener, clock)
    state = rule.state(run.model.layout.size, run.model.dtype)
    schedule = schedule or Constant()
    gradient = Arena(run.model.layout, run.model.dtype)
    run.evaluate()
    for batch in run.batches():
        loss = run.model.gradient(run.parameters, batch, gradient)
        if not (math.isfinite(loss) and all_finite(gradient.flat)):
            run.fault = Fault(0, run.step + 1, loss)
            break
        state.apply(run.parameters.flat, gradient.flat, schedule.factor(run.step))
        run.stepped(batch.size, loss)
    if run.fault is None:
        run.evaluate()
    return Outcome(run.fault is not None, run.good, run.latest, run.fault)


class _Run:
    """The accounts of one run: where it is, when it evaluates, what it would keep."""

    def __init__(self, problem: Problem, stop: Stop, evaluate: Evaluate, listener: Listener, clock):
        self.model = problem.model()
        self.parameters = Arena(self.model.layout, self.model.dtype)
        self.good = Arena(self.model.layout, self.model.dtype)
        self.model.initialise(self.parameters, problem.seed)
        self.step = 0
        self.latest: Evaluation | None = None
        self.fault: Fault | None = None
        self._problem = problem
        self._stop = stop
        self._every = evaluate.every_examples or math.inf
        self._mark = self._every
        self._listener = listener
        self._clock = clock
        self._examples = 0
        self._loss = math.nan
        self._began = clock()

    def batches(self):
        """The minibatches of all epochs, until training is to stop."""
        data = self._problem.batches(0, 1)
        for epoch in itertools.count() if self._stop.epochs is None else range(self._stop.epochs):
            for batch in data.epoch(epoch):
                if self.fault or self._seconds() >= (self._stop.seconds or math.inf):
                    return
                yield batch

    def stepped(self, examples: int, loss: float) -> None:
        self.step += 1
        self._examples += examples
        self._loss = loss
        if self._examples >= self._mark:
            self.evaluate()
            self._mark = (self._examples // self._every + 1) * self._every
        else:
            self._listener.progress(Progress(self._seconds(), self.step, self._examples, loss))

    def evaluate(self) -> None:
        """Try the parameters on the held-out examples, and keep them if their loss is finite."""
        if self.latest is not None and self.latest.step == self.step:
            return
        seconds = self._seconds()
        loss, accuracy = score(self.model, self.parameters, self._problem.held_out())
        if not math.isfinite(loss):
            self.fault = Fault(None, self.step, loss)
            return
        self.good.flat[:] = self.parameters.flat
        self.latest = Evaluation(
            time=seconds,
            step=self.step,
            examples=self._examples,
            loss=loss,
            accuracy=accuracy,
            train_loss=self._loss if self.step else None,
            examples_per_s=self._examples / max(seconds, 1e-9),
        )
        self._listener.evaluated(self.latest)

    def _seconds(self) -> float:
        return self._clock() - self._began
