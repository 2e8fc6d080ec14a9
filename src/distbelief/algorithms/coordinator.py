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
from distbelief.algorithms.model import Problem
from distbelief.algorithms.progress import Evaluation, Fault, Listener, Outcome, Progress
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.scoring import scoring
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Envelope, Request
from distbelief.nn.arena import Arena
from distbelief.server import Client
from distbelief.server.messages import record


class Coordinator:
    """A part of rank `roles.coordinator`'s loop. All methods are Local."""

    tags = (REPORT,)

    def __init__(
        self,
        endpoint: Endpoint,
        roles: Roles,
        client: Client,
        problem: Problem,
        settings: tuple[Downpour, Stop, Evaluate],
        timeout: float,
        listener: Listener,
    ):
        self._endpoint = endpoint
        self._roles = roles
        self._others = [rank for rank in range(endpoint.size) if rank != endpoint.rank]
        self._client = client
        self._problem = problem
        self._downpour, self._stop, evaluate = settings
        self._timeout = timeout
        self._listener = listener
        self._model = problem.model()
        self._fetched = Arena(self._model.layout, self._model.dtype)
        self._good = Arena(self._model.layout, self._model.dtype)
        self._model.initialise(self._good, problem.seed)
        self._latest: Evaluation | None = None
        self._fault: Fault | None = None
        self._every = evaluate.every_examples or math.inf
        self._mark = self._every
        self._evaluating: Generator | None = None
        self._reports = np.zeros(len(roles.replicas), REPORT_RECORD)  # the latest of each replica
        self._heard = np.full(len(roles.replicas), endpoint.clock())
        self._waiting_shards = set(roles.shards) - {endpoint.rank}
        self._sending: list[Request] = []
        self._began = math.nan
        self._ticked = endpoint.clock()
        self._warm = self._stopping = False
        self.finished = False

    @property
    def outcome(self) -> Outcome:
        return Outcome(self._fault is not None, self._good, self._latest, self._fault)

    def take(self, envelope: Envelope) -> None:
        """Receive the report that waits in `envelope`."""
        said = np.zeros(1, REPORT_RECORD)
        request = self._endpoint.receive(said, envelope.source, REPORT)
        self._endpoint.wait_all([request], self._timeout, f"a report from rank {envelope.source}")
        kind, replica = int(said["kind"][0]), int(said["replica"][0])
        if kind == READY:
            self._waiting_shards.discard(envelope.source)
            return
        self._reports[replica] = said[0]
        self._heard[replica] = self._endpoint.clock()
        if kind == FAULT and self._fault is None:
            self._fault = Fault(replica, int(said["step"][0]), float(said["loss"][0]))
            self._evaluating = None
        elif self._fault is None:
            step, examples = int(self._reports["step"].sum()), int(self._reports["examples"].sum())
            self._listener.progress(Progress(self._seconds(), step, examples, float(said["loss"][0])))

    def work(self) -> float:
        """One piece of whatever is due; 0 while there is more, else the seconds until something may be due."""
        if self._waiting_shards:
            return self._look_for_silence()
        if math.isnan(self._began):
            self._began = self._endpoint.clock()
            self._heard[:] = self._began
            self._order(START, self._roles.replicas[:1])
            self._evaluating = self._evaluate()
        self._let_loose()
        self._stop_when_due()
        if self._evaluating is not None:
            if next(self._evaluating, "over") == "over":
                self._evaluating = None
            return 0.0
        through = np.isin(self._reports["kind"], (FAULT, FINISHED)).all()
        if through and (self._fault is not None or self._evaluated_all()):
            self._order(
                GIVE_UP if self._fault else END,
                [rank for rank in range(self._endpoint.size) if rank != self._endpoint.rank],
            )
            self._endpoint.wait_all(self._sending, self._timeout, "all ranks to take the order to leave")
            self.finished = True
            return 0.0
        if self._fault is None and (through or self._reports["examples"].sum() >= self._mark):
            self._mark += self._every
            self._evaluating = self._evaluate()
            return 0.0
        return self._look_for_silence()

    def _let_loose(self) -> None:
        """Warmstart: the other replicas start once replica 0 has taken so many steps alone, or all that it has."""
        first = self._reports[0]
        warm = first["step"] >= self._downpour.warmstart or first["kind"] == FINISHED or self._stopping
        if warm and not self._warm:
            self._warm = True
            self._heard[:] = self._endpoint.clock()
            self._order(START, self._roles.replicas[1:])

    def _stop_when_due(self) -> None:
        due = self._fault is not None or self._seconds() >= (self._stop.seconds or math.inf)
        if due and not self._stopping:
            self._stopping = True
            self._order(STOP, self._roles.replicas)

    def _evaluated_all(self) -> bool:
        return self._latest is not None and self._latest.examples == self._reports["examples"].sum()

    def _evaluate(self) -> Generator[None, None, None]:
        """Fetch the parameters and try them on the held-out examples, a batch at a time."""
        totals = {name: self._reports[name].sum().item() for name in REPORT_RECORD.names[2:]}
        loss_seen = self._reports["loss"][self._reports["step"] > 0]
        fetch = self._client.fetch()
        while not fetch.done():
            yield
        self._client.install(fetch, self._fetched.flat, None, 0.0)
        seconds = self._seconds()
        loss, accuracy = yield from scoring(self._model, self._fetched, self._problem.held_out(), self._endpoint.charge)
        if not math.isfinite(loss):
            self._fault = Fault(int(self._reports["step"].argmax()), int(self._reports["step"].max()), loss)
            return
        self._good.flat[:] = self._fetched.flat
        counts = fetch.records["count"]
        self._latest = Evaluation(
            time=seconds,
            step=totals["step"],
            examples=totals["examples"],
            loss=loss,
            accuracy=accuracy,
            train_loss=float(loss_seen.mean()) if loss_seen.size else None,
            examples_per_s=totals["examples"] / max(seconds, 1e-9),
            staleness=(fetch.records["staleness_sum"] / np.maximum(counts, 1)).tolist(),
            staleness_max=fetch.records["staleness_max"].tolist(),
            updates=counts.tolist(),
            bytes_fetched=totals["bytes_fetched"],
            bytes_pushed=totals["bytes_pushed"],
            seconds_waiting=totals["seconds_waiting"],
        )
        self._listener.evaluated(self._latest)

    def _look_for_silence(self) -> float:
        """Tell the others that this rank lives; raise DeadlineExpired for a rank that has been silent too long.

        Returns the seconds until the next look.
        """
        now = self._endpoint.clock()
        if self._waiting_shards:
            late, silence = f"the shards on ranks {sorted(self._waiting_shards)} to begin", now - self._ticked
        else:
            training = ~np.isin(self._reports["kind"], (FAULT, FINISHED))
            training[1:] &= self._warm
            silent = np.where(training, now - self._heard, 0.0)
            replica = int(silent.argmax())
            late = f"a report of replica {replica} (rank {self._roles.replicas[replica]})"
            silence = float(silent[replica])
        if silence >= self._timeout:
            raise DeadlineExpired(f"rank {self._endpoint.rank} waited {silence:.0f} s for {late}")
        if now - self._ticked >= self._timeout / 4 and not self._waiting_shards:
            self._ticked = now
            self._order(TICK, self._others)
        rest = min(self._timeout / 4, self._timeout - silence)
        if self._stop.seconds is not None and not self._stopping and not math.isnan(self._began):
            rest = min(rest, max(self._began + self._stop.seconds - now, 0.0))
        return rest

    def _order(self, kind: int, ranks: list[int]) -> None:
        self._sending = [request for request in self._sending if not request.done()]
        self._sending += [self._endpoint.send(record(ORDER_RECORD, kind=kind), rank, ORDER) for rank in ranks]

    def _seconds(self) -> float:
        return self._endpoint.clock() - self._began
