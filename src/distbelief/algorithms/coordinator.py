"""The coordinator of Downpour: starts replicas, evaluates now and then, stops everyone. It holds no replica back."""

import math
from collections.abc import Iterable

import numpy as np

from distbelief.algorithms.coordination import (
    END,
    EVALUATE,
    FAULT,
    FINISHED,
    GIVE_UP,
    ORDER,
    ORDER_RECORD,
    READY,
    REPORT,
    REPORT_RECORD,
    SCORED,
    SCORING,
    START,
    STOP,
    TICK,
)
from distbelief.algorithms.delegate import Delegate
from distbelief.algorithms.evaluator import Evaluates, Evaluator, Pieces
from distbelief.algorithms.keeper import Keeper
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
        keeper: Keeper | None = None,
    ):
        """`keeper`: of the parameters, if no rank is to hold them as a whole."""
        self._endpoint = endpoint
        self._client = client
        self._roles = roles
        self._to_start = list(enumerate(starts(downpour, len(roles.replicas))))
        self._warmstart = downpour.warmstart
        self._stop_seconds = stop.seconds or math.inf
        self._every = evaluate.every_examples or math.inf
        self._mark = self._every  # examples at which the next evaluation is due
        self._timeout = timeout
        self._listener = listener
        self._ledger = Ledger(len(roles.replicas))
        self._evaluator: Evaluates
        if keeper is None:
            self._evaluator = Evaluator(endpoint, client, problem, self._ledger, timeout)
        else:
            order = self._order_evaluation
            self._evaluator = Delegate(endpoint, client, problem, self._ledger, keeper, order, 1.5 * timeout)
        self._evaluating: Pieces | None = None
        self._fault: Fault | None = None
        self._warned = False
        self._others = [rank for rank in range(endpoint.size) if rank != endpoint.rank]
        self._late_shards = set(roles.shards) - {endpoint.rank}
        self._sending: list[Request] = []
        self._ticked = endpoint.clock()
        self._began = math.nan
        self._stopping = self._evaluating_last = self._tested = False
        self.finished = False

    @property
    def outcome(self) -> Outcome:
        found = self._evaluator
        return Outcome(self._fault is not None, found.good, found.latest, self._fault, test_score=found.test_score)

    def take(self, envelope: Envelope) -> None:
        """Receive the report that waits in `envelope`."""
        said = np.zeros(1, REPORT_RECORD)
        request = self._endpoint.receive(said, envelope.source, REPORT)
        self._endpoint.wait_all([request], self._timeout, f"a report from rank {envelope.source}")
        report = said[0]
        if report["kind"] == READY:
            self._late_shards.discard(envelope.source)
            return
        if report["kind"] in (SCORING, SCORED):
            self._ledger.heard(int(report["replica"]), self._endpoint.clock())
            self._evaluator.take(report)
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
        if self.finished:
            return math.inf
        if self._late_shards:
            return self._look_for_silence()
        self._give_a_sign()
        if math.isnan(self._began):
            self._begin()
        if not self._holds_back:
            self._let_loose()
        self._stop_when_due()
        if self._evaluating is not None:
            return self._evaluate_a_piece()
        if self._ledger.all_through() and (self._fault or self._evaluating_last):
            if self._fault is None and not self._tested:
                self._tested = True
                self._evaluating = self._evaluator.test()
            else:
                self._end()
        elif self._fault is None and (self._ledger.all_through() or self._ledger.total("examples") >= self._mark):
            self._mark = (self._ledger.total("examples") // self._every + 1) * self._every
            # The last evaluation is one that began after every push had been applied.
            self._evaluating_last = self._ledger.all_through()
            self._evaluating = self._evaluator.start(self._seconds())
        else:
            return self._look_for_silence()
        return 0.0

    def _begin(self) -> None:
        self._evaluating = self._evaluator.first(self._timeout)
        self._began = self._endpoint.clock()

    @property
    def _holds_back(self) -> bool:
        """Replicas are not to start before the first evaluation is through."""
        return self._evaluator.holds_back and self._evaluator.latest is None and self._fault is None

    def _let_loose(self) -> None:
        """Start the replicas that are due: at once when replica 0 has no more steps to take, or all are to stop."""
        first = self._ledger[0]
        everybody = first["kind"] == FINISHED or self._stopping
        due = [each for each in self._to_start if everybody or each[1] <= first["step"]]
        self._to_start = self._to_start[len(due) :]
        self._ledger.started([replica for replica, _ in due], self._endpoint.clock())
        for replica, step in due:  # with the clock that replica 0 has, or would have reached, by then
            clock = max(min(step, int(first["step"])) - self._warmstart, 0)
            self._order(START, [self._roles.replicas[replica]], clock)

    def _stop_when_due(self) -> None:
        due = self._fault is not None or self._seconds() >= self._stop_seconds
        if due and not self._stopping:
            self._stopping = True
            self._order(STOP, self._roles.replicas)

    def _end(self) -> None:
        # This rank, too, if a replica is beside.
        beside = [] if self._roles.place(self._endpoint.rank) is None else [self._endpoint.rank]
        self._order(GIVE_UP if self._fault else END, [*self._others, *beside])
        self._endpoint.wait_all(self._sending, self._timeout, "all ranks to take the order to leave")
        self.finished = True

    def _evaluate_a_piece(self) -> float:
        """Returns the seconds until there may be more to do."""
        first = self._holds_back
        try:
            return min(next(self._evaluating), self._timeout / 4)
        except StopIteration as end:
            result = end.value
        self._evaluating = None
        if first:
            self._began = self._endpoint.clock()  # only now
        if isinstance(result, Fault):
            self._fault = result
        elif result is not None:
            self._listener.evaluated(result)
            self._warn_of_drift(result)
        return 0.0

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
        """Raise DeadlineExpired for a rank that is silent too long; returns the seconds until the next look."""
        now, patience = self._endpoint.clock(), self._timeout
        if self._late_shards:
            late, silence = f"the shards on ranks {sorted(self._late_shards)} to begin", now - self._ticked
        else:
            # A replica that waits for a shard in vain is to say so first.
            patience *= 1.5
            replica, silence = self._ledger.most_silent(now)
            late = f"a report of replica {replica} (rank {self._roles.replicas[replica]})"
        if silence >= patience:
            raise DeadlineExpired(f"rank {self._endpoint.rank} waited {silence:.0f} s for {late}")
        rest = min(self._timeout / 4, patience - silence)
        if not (self._stopping or math.isnan(self._began)):
            rest = min(rest, max(self._stop_seconds - self._seconds(), 0.0))
        return rest

    def _give_a_sign(self) -> None:
        """Tell the others now and then that this rank lives."""
        now = self._endpoint.clock()
        if now - self._ticked >= self._timeout / 4:
            self._ticked = now
            self._order(TICK, self._others)

    def _order_evaluation(self, which: int) -> None:
        self._order(EVALUATE, [self._roles.replicas[0]], which)

    def _order(self, kind: int, ranks: Iterable[int], which: int = 0) -> None:
        self._sending = [request for request in self._sending if not request.done()]
        said = record(ORDER_RECORD, kind=kind, which=which)
        self._sending += [self._endpoint.send(said, rank, ORDER) for rank in ranks]

    def _seconds(self) -> float:
        return self._endpoint.clock() - self._began
