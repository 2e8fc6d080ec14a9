"""A replica of Sandblaster, as the coordinator sees it: one rank, or the head of several, which say and do the same."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from distbelief.algorithms.sandblaster.messages import (
    ACCEPT,
    ALIVE,
    ASSIGN,
    DONE,
    DROP,
    GRANT,
    HERE,
    REJECT,
    RESULT,
    RESULT_RECORD,
    REVOKE,
    SCORES,
    STEP,
    WORK,
    WORK_RECORD,
)
from distbelief.algorithms.sandblaster.outbox import ANSWERED
from distbelief.algorithms.sandblaster.worker import Task, Worker
from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Envelope, Request
from distbelief.server.messages import record

# Finished portions whose verdicts may be on their way while the next is computed.
MOST_FINISHED = 1
# A replica with something to do says so at least so often, in timeouts.
SIGN_OF_LIFE = 1 / 16


class Replica:
    """A part of its rank's loop (algorithms.loop): between two minibatches it listens. All methods are Local.

    What its worker does, the other ranks of the replica are told to do, at that moment: so all are at the same
    minibatch. If they do not meet there within the time of `Peers`, the replica is silent from then on, as one that has
    died; its ranks go on with their other roles.
    """

    tags = (WORK, HERE)
    finished = False

    def __init__(
        self,
        endpoint: Endpoint,
        coordinator: int,
        number: int,
        worker: Worker,
        timeout: float,
        followers: Sequence[int] = (),
    ):
        """`number`: of this replica; `followers`: the ranks of its other partitions."""
        self._endpoint = endpoint
        self._coordinator = coordinator
        self._number = number
        self._worker = worker
        self._timeout = timeout
        self._unanswered = dict.fromkeys(followers, 0)  # by rank: what it has been asked for a sign of life
        self._queue: deque[np.void] = deque()  # portions to begin with
        self._broken = False
        self._sending: list[Request] = []
        self._spoke = endpoint.clock()
        self._taken = 0  # orders since then
        self._idle_since: float | None = endpoint.clock()
        self._seconds_idle = 0.0

    def take(self, envelope: Envelope | None) -> None:
        """Hear everything that the coordinator has said, or that a follower lives."""
        if envelope.tag == HERE:
            self._hear_of(envelope.source)
            return
        while envelope is not None:
            said = np.zeros(1, WORK_RECORD)
            receiving = self._endpoint.receive(said, envelope.source, WORK)
            self._endpoint.wait_all([receiving], self._timeout, f"an order of rank {envelope.source}")
            self._taken += 1
            if not self._broken:
                self._obey(said[0])
            envelope = self._endpoint.probe(self._coordinator, WORK)
        if self._taken >= ANSWERED and not self._broken:
            self._say(ALIVE)

    def work(self) -> float:
        """A minibatch of the portion at hand; returns 0 while there is more to do, else the seconds to rest."""
        worker = self._worker
        worker.reclaim()
        if self._broken:
            return math.inf
        if worker.task is None and self._queue and len(worker.finished) <= MOST_FINISHED:
            self._do(self._queue.popleft())
        now = self._endpoint.clock()
        silent = now - self._spoke
        if (worker.task or worker.ships) and silent >= SIGN_OF_LIFE * self._timeout:
            self._say(ALIVE)
        if worker.task is None:
            if self._idle_since is None:
                self._idle_since = now
            return max(SIGN_OF_LIFE * self._timeout - silent, 0.0) if worker.ships else math.inf
        if self._idle_since is not None:
            self._seconds_idle += now - self._idle_since
            self._idle_since = None
        self._compute()
        return 0.0

    def _obey(self, said: np.void) -> None:
        kind, name = int(said["kind"]), _name(said)
        if kind in (ASSIGN, *SCORES):
            # One that we have finished meanwhile was given up and is given again: our report is the answer to that.
            if name not in self._worker.finished:
                self._queue.append(said)
                self._worker.read_ahead(kind, name[1])
        elif kind in (ACCEPT, REJECT, GRANT):
            self._do(said)
        elif kind == DROP:
            self._queue = deque(order for order in self._queue if _name(order) != name)
            if self._worker.task is not None and self._worker.task.name == name:
                self._do(said)
        elif kind == REVOKE:
            self._do(said)
            for rank in self._unanswered:
                self._unanswered[rank] += 1
            self._say_all_live()
        else:
            raise RuntimeError(f"replica on rank {self._endpoint.rank}: an order of unknown kind {kind}")

    def _compute(self) -> None:
        try:
            done = self._do(record(WORK_RECORD, kind=STEP)[0])
        except DeadlineExpired:
            if not self._unanswered:
                raise
            self._broken = True
            return
        if done is not None:
            self._say(
                DONE,
                evaluation=done.evaluation,
                portion=done.portion,
                examples=done.examples,
                loss=done.loss,
                right=math.nan if done.right is None else done.right,
                seconds=done.seconds,
            )

    def _do(self, order: np.void) -> Task | None:
        """On all ranks of the replica."""
        if self._unanswered:
            said = np.array([order], WORK_RECORD)
            self._sending = [request for request in self._sending if not request.done()]
            self._sending += [self._endpoint.send(said, rank, WORK) for rank in self._unanswered]
        return self._worker.carry_out(order)

    def _hear_of(self, rank: int) -> None:
        said = np.zeros(0, np.uint8)
        receiving = self._endpoint.receive(said, rank, HERE)
        self._endpoint.wait_all([receiving], self._timeout, f"a sign of life of rank {rank}")
        self._unanswered[rank] -= 1
        self._say_all_live()

    def _say_all_live(self) -> None:
        if not self._broken and not any(self._unanswered.values()):
            self._say(ALIVE)

    def _say(self, kind: int, **fields) -> None:
        self._spoke, self._taken = self._endpoint.clock(), 0
        said = record(
            RESULT_RECORD,
            kind=kind,
            replica=self._number,
            seconds_idle=self._seconds_idle,
            bytes_fetched=self._worker.bytes_fetched,
            **fields,
        )
        self._sending = [request for request in self._sending if not request.done()]
        self._sending.append(self._endpoint.send(said, self._coordinator, RESULT))


def _name(order: np.void) -> tuple[int, int]:
    return int(order["evaluation"]), int(order["portion"])
