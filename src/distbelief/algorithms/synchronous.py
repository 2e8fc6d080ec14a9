"""Synchronous SGD with all-reduce: the baseline that Downpour is compared with (Das et al. 2016, Goyal et al. 2017).

Every rank is a replica with all the parameters. In each step all compute a gradient, each on its own minibatch; the
gradients are summed over the ranks (comm.ring), weighted by the examples in them, and every rank applies the mean to
its own parameters by the same rule. So R replicas with minibatches of b do what one process does with R b; all have the
same parameters at any time, to the bit; and the slowest sets the pace.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from distbelief.algorithms.model import Batch, Problem
from distbelief.algorithms.progress import Evaluation, Fault, Listener, Outcome, Progress
from distbelief.algorithms.settings import Evaluate, Stop
from distbelief.comm.endpoint import Endpoint
from distbelief.comm.ring import Ring
from distbelief.kernels import weigh
from distbelief.nn.arena import Arena
from distbelief.optim import Constant, Rule, Schedule

# What travels behind the gradient: weighted loss, examples, replicas with a number that is not finite, and whether
# rank 0 wants to stop.
LOSS, EXAMPLES, STRAY, STOP = range(4)
TAIL = 4


def train(
    endpoint: Endpoint,
    problem: Problem,
    rule: Rule,
    stop: Stop,
    evaluate: Evaluate,
    listener: Listener | None,
    timeout: float = 300.0,
    schedule: Schedule | None = None,
) -> Outcome:
    """Train until the job is done. Collective over the endpoint; every rank is a replica, rank 0 the one that reports.

    `schedule`: a factor on the rule's rate, by the step. `listener`: rank 0's; others have none. `timeout`: seconds
    that any one wait may take, before DeadlineExpired says who waited for whom. A gradient that is not finite is never
    applied, as in serial training.
    """
    run = _Run(endpoint, problem, stop, evaluate, listener, timeout)
    state = rule.state(run.model.layout.size, run.model.dtype)
    schedule = schedule or Constant()
    run.share_beginning()
    run.evaluate()
    for batch in run.batches():
        if run.sum_gradients(batch):
            state.apply(run.parameters.flat, run.gradient.flat, schedule.factor(run.step))
            endpoint.charge(nbytes=state.traffic * run.parameters.flat.nbytes)
            run.stepped()
    if run.fault is None:
        run.evaluate()
    return run.outcome


class _Run:
    """One rank's replica and accounts. Methods are Collective, unless they say otherwise."""

    def __init__(self, endpoint, problem: Problem, stop: Stop, evaluate: Evaluate, listener, timeout: float):
        self.model = problem.model()
        layout, dtype = self.model.layout, self.model.dtype
        self.parameters = Arena(layout, dtype)
        self._summed = np.zeros(layout.size + TAIL, dtype)
        self.gradient = Arena(layout, dtype, self._summed[: layout.size])
        self._tail = self._summed[layout.size :]
        self._good = Arena(layout, dtype) if endpoint.rank == 0 else None
        self.model.initialise(self.parameters, problem.seed)
        if self._good is not None:
            self._good.flat[:] = self.parameters.flat
        self.step = 0
        self.fault: Fault | None = None
        self._endpoint = endpoint
        self._ring = Ring(endpoint, timeout)
        self._problem = problem
        self._stop = stop
        self._every = evaluate.every_examples or math.inf
        self._mark = self._every
        self._listener = listener
        self._latest: Evaluation | None = None
        self._evaluated = -1  # the step
        self._examples = 0  # of all replicas
        self._own_examples = 0
        self._expected = 0.0  # the most examples that all replicas had in a step; 0 before the first
        self._loss: float | None = None
        self._stopping = False
        self._began = endpoint.clock()

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.fault is not None, self._good, self._latest, self.fault)

    def share_beginning(self) -> None:
        """Take rank 0's parameters: a model might not begin alike everywhere."""
        if self._endpoint.rank:
            self.parameters.flat[:] = 0
        self._ring.sum(self.parameters.flat)

    def batches(self) -> Iterator[Batch | None]:
        """This rank's minibatches, until training is to stop; None where only others have one left. Local."""
        data = self._problem.batches(self._endpoint.rank, self._endpoint.size)
        for epoch in itertools.count() if self._stop.epochs is None else range(self._stop.epochs):
            mine = iter(data.epoch(epoch))
            self._epoch_goes_on = True
            while self._epoch_goes_on:
                yield next(mine, None)
                if self._stopping or self.fault:
                    return

    def sum_gradients(self, batch: Batch | None) -> bool:
        """Leave the mean gradient over all replicas' examples in `gradient`; False if there is nothing to apply."""
        finite, size, loss = True, 0 if batch is None else batch.size, 0.0
        if not self._expected:
            sizes = np.array([float(size)])
            self._ring.sum(sizes)
            self._expected = float(sizes[0])
        if batch is None:
            self._summed[:] = 0
        else:
            loss = self.model.gradient(self.parameters, batch, self.gradient)
            self._endpoint.charge(flops=3 * self.model.flops(size), nbytes=2 * self.gradient.flat.nbytes)
            # Divided already by the examples that there probably are, for one pass instead of two; never by fewer, so
            # that no number of a finite gradient overflows.
            weight = size / self._expected
            finite = weigh(self.gradient.flat, weight) and math.isfinite(loss)
            self._tail[LOSS] = loss * weight
        self._tail[EXAMPLES:] = size, not finite, self._endpoint.rank == 0 and self._overdue()
        self._ring.sum(self._summed)
        examples, stray, stop = self._tail[EXAMPLES:].tolist()
        if stray:
            self._find_fault(finite, loss)
        if stray or not examples:
            self._epoch_goes_on = False
            return False
        if examples != self._expected:
            self._summed[: self._summed.size - TAIL + 1] *= self._expected / examples  # the gradient and its loss
            self._expected = max(self._expected, examples)
        self._loss = float(self._tail[LOSS])
        self._examples += int(examples)
        self._own_examples += size
        self._stopping = stop > 0
        return True

    def stepped(self) -> None:
        """The mean gradient has been applied: report, evaluate if it is time."""
        self.step += 1
        if self._examples >= self._mark:
            self._mark = (self._examples // self._every + 1) * self._every
            self.evaluate()
        elif self._listener is not None:
            self._listener.progress(Progress(self._seconds(), self._steps, self._examples, self._loss))

    def evaluate(self) -> None:
        """Try the parameters on the held-out examples, of which every rank scores its share."""
        if self._evaluated == self.step:
            return
        self._evaluated = self.step
        rank, ring = self._endpoint.rank, self._ring
        seconds = self._seconds()
        speeds = np.zeros(self._endpoint.size)
        speeds[rank] = self._own_examples / max(seconds, 1e-9)
        # Loss, examples, those that are right, those of which nobody knows; the ring's accounts; speeds.
        accounts = [ring.bytes_gathered, ring.bytes_reduced, ring.seconds_gathering, ring.seconds_reducing]
        sums = np.array([*self._score(), *accounts, *speeds])
        ring.sum(sums)
        loss, examples, right, unknown, *accounts = sums.tolist()
        loss /= examples
        if not math.isfinite(loss):
            self.fault = Fault(None, self._steps, loss)
            return
        if self._good is None:
            return
        self._good.flat[:] = self.parameters.flat
        self._latest = Evaluation(
            time=seconds,
            step=self._steps,
            examples=self._examples,
            loss=loss,
            accuracy=None if unknown else right / examples,
            train_loss=self._loss,
            examples_per_s=self._examples / max(seconds, 1e-9),
            bytes_fetched=int(accounts[0]),
            bytes_pushed=int(accounts[1]),
            seconds_fetching=accounts[2],
            seconds_pushing=accounts[3],
            replica_examples_per_s=accounts[4:],
        )
        self._listener.evaluated(self._latest)

    def _score(self) -> tuple[float, float, float, float]:
        """Of this rank's share: the sum of the losses; examples, those right, those of which nobody knows. Local."""
        loss = examples = right = unknown = 0
        for batch in itertools.islice(self._problem.held_out(), self._endpoint.rank, None, self._endpoint.size):
            batch_loss, batch_right = self.model.score(self.parameters, batch)
            self._endpoint.charge(flops=self.model.flops(batch.size))
            loss, examples = loss + batch_loss, examples + batch.size
            right += batch_right or 0
            unknown += batch.size if batch_right is None else 0
        return loss, examples, right, unknown

    def _find_fault(self, finite: bool, loss: float) -> None:
        """Learn which replica met a number that is not finite: the first, if there are several."""
        told = np.zeros((self._endpoint.size, 2))
        told[self._endpoint.rank] = not finite, 0.0 if finite else loss
        self._ring.sum(told.reshape(-1))
        replica = int(told[:, 0].argmax())
        self.fault = Fault(replica, self.step + 1, float(told[replica, 1]))

    @property
    def _steps(self) -> int:
        """Of all replicas together."""
        return self.step * self._endpoint.size

    def _overdue(self) -> bool:
        return self._seconds() >= (self._stop.seconds or math.inf)

    def _seconds(self) -> float:
        return self._endpoint.clock() - self._began
