"""The coordinator of Downpour: starts replicas, evaluates now and then, stops everyone. It holds no replica back."""

import math
from collections.abc import Generator

import numpy as np

from distbelief.algorithms.coordination import (
    END,
    FAULT,
    FINISHED,
    GIVE_UP,
    ORDER,
    ORDER_RECORD,
    READY,
    REPORT,
    REPORT_RECORD,
    START,
    STOP,
    TICK,
)
from distbelief.algorithms.evaluator import Evaluator
from distbelief.algorithms.ledger import Ledger
from distbelief.algorithms.model import Problem
from distbelief.algorithms.progress import Evaluation, Fault, Listener, Outcome, Progress
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.algorithms.warmstart import starts
from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Envelope, Request
from distbelief.server import Client
from distbelief.server.messages import record


class Coordinator:
    """A part of rank `roles.coordinator`'s loop (algorithms.loop). All methods are Local."""

    tags = (REPORT,)

    def __init__(
        self,
        endpoint: Endpoint,
        roles: Roles,
        client: Client,
        problem: Problem,
        downpour: Downpour,
        stop: Stop,
        evaluate: Evaluate,
        timeout: float,
        listener: Listener,
    ):
        self._endpoint = endpoint
        self._client = client
        self._roles = roles
        self._to_start = list(enumerate(starts(downpour, len(roles.replicas))))
        self._stop_seconds = stop.seconds or math.inf
        self._every = evaluate.every_examples or math.inf
        self._mark = self._every  # examples at which the next evaluation is due
        self._timeout = timeout
        self._listener = listener
        self._ledger = Ledger(len(roles.replicas))
        self._evaluator = Evaluator(endpoint, client, problem, self._ledger)
        self._evaluating: Generator | None = None
        self._fault: Fault | None = None
        self._warned = False
        self._others = [rank for rank in range(endpoint.size) if rank != endpoint.rank]
        self._late_shards = set(roles.shards) - {endpoint.rank}
        self._sending: list[Request] = []
        self._ticked = endpoint.clock()
        self._began = math.nan
        self._stopping = self._evaluating_last = False
        self.finished = False

    @property
    def outcome(self) -> Outcome:
        return Outcome(self._fault is not None, self._evaluator.good, self._evaluator.latest, self._fault)

    def take(self, envelope: Envelope) -> None:
        """Receive the report that waits in `envelope`."""
        said = np.zeros(1, REPORT_RECORD)
        request = self._endpoint.receive(said, envelope.source, REPORT)
        self._endpoint.wait_all([request], self._timeout, f"a report from rank {envelope.source}")
        report = said[0]
        if report["kind"] == READY:
            self._late_shards.discard(envelope.source)
            return
        self._ledger.enter(report, self._endpoint.clock())
        if self._fault is not None:
            return
        if report["kind"] == FAULT:
            self._fault = Fault(int(report["replica"]), int(report["step"]), float(report["loss"]))
            self._evaluating = None
        else:
            step, examples = self._ledger.total("step"), self._ledger.total("examples")
            self._listener.progress(Progress(self._seconds(), step, examples, float(report["loss"])))

    def work(self) -> float:
        """One piece of whatever is due; returns 0 while there is more, else the seconds until there may be."""
        if self._late_shards:
            return self._look_for_silence()
        if math.isnan(self._began):
            self._begin()
        self._let_loose()
        self._stop_when_due()
        if self._evaluating is not None:
            self._evaluate_a_piece()
        elif self._ledger.all_through() and (self._fault or self._evaluating_last):
            self._end()
        elif self._fault is None and (self._ledger.all_through() or self._ledger.total("examples") >= self._mark):
            self._mark = (self._ledger.total("examples") // self._every + 1) * self._every
            # The last evaluation is one that began after every push had been applied.
            self._evaluating_last = self._ledger.all_through()
            self._evaluating = self._evaluator.evaluate(self._seconds(), self._client.fetch())
        else:
            return self._look_for_silence()
        return 0.0

    def _begin(self) -> None:
        fetch = self._client.fetch()
        fetch.wait_all(self._timeout)  # before anybody moves the parameters
        self._began = self._endpoint.clock()
        self._let_loose()
        self._evaluating = self._evaluator.evaluate(0.0, fetch)

    def _let_loose(self) -> None:
        """Start the replicas that are due: at once when replica 0 has no more steps to take, or all are to stop."""
        first = self._ledger[0]
        everybody = first["kind"] == FINISHED or self._stopping
        due = [replica for replica, step in self._to_start if everybody or step <= first["step"]]
        self._to_start = self._to_start[len(due) :]
        if due:
            self._ledger.started(due, self._endpoint.clock())
            self._order(START, [self._roles.replicas[replica] for replica in due])

    def _stop_when_due(self) -> None:
        due = self._fault is not None or self._seconds() >= self._stop_seconds
        if due and not self._stopping:
            self._stopping = True
            self._order(STOP, self._roles.replicas)

    def _end(self) -> None:
        self._order(GIVE_UP if self._fault else END, self._others)
        self._endpoint.wait_all(self._sending, self._timeout, "all ranks to take the order to leave")
        self.finished = True

    def _evaluate_a_piece(self) -> None:
        try:
            next(self._evaluating)
            return
        except StopIteration as end:
            result = end.value
        self._evaluating = None
        if isinstance(result, Fault):
            self._fault = result
        else:
            self._listener.evaluated(result)
            self._warn_of_drift(result)

    def _warn_of_drift(self, evaluation: Evaluation) -> None:
        """A replica pushes again once all shards have applied its last push: they differ by one for each replica."""
        expected = len(self._roles.replicas)
        if evaluation.drift > 2 * expected and not self._warned:
            self._warned = True
            self._listener.warned(
                f"shards drift apart: one is {evaluation.drift} updates ahead of another, expected {expected} at most; "
                f"updates by shard: {evaluation.updates}"
            )

    def _look_for_silence(self) -> float:
        """Tell the others now and then that this rank lives; raise DeadlineExpired for one that is silent too long.

        Returns the seconds until the next look.
        """
        now, patience = self._endpoint.clock(), self._timeout
        if self._late_shards:
            late, silence = f"the shards on ranks {sorted(self._late_shards)} to begin", now - self._ticked
        else:
            # A replica that waits for a shard in vain is to say so first.
            patience *= 1.5
            replica, silence = self._ledger.most_silent(now)
            late = f"a report of replica {replica} (rank {self._roles.replicas[replica]})"
            if now - self._ticked >= self._timeout / 4:
                self._ticked = now
                self._order(TICK, self._others)
        if silence >= patience:
            raise DeadlineExpired(f"rank {self._endpoint.rank} waited {silence:.0f} s for {late}")
        rest = min(self._timeout / 4, patience - silence)
        if not (self._stopping or math.isnan(self._began)):
            rest = min(rest, max(self._stop_seconds - self._seconds(), 0.0))
        return rest

    def _order(self, kind: int, ranks: list[int]) -> None:
        self._sending = [request for request in self._sending if not request.done()]
        self._sending += [self._endpoint.send(record(ORDER_RECORD, kind=kind), rank, ORDER) for rank in ranks]

    def _seconds(self) -> float:
        return self._endpoint.clock() - self._began
