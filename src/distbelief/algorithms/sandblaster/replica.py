"""A replica of Sandblaster: gradients over portions, and their sum for the shards every few of them."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from distbelief.algorithms.model import Examples, Model
from distbelief.algorithms.sandblaster.messages import (
    ACCEPT,
    ALIVE,
    ASSIGN,
    DONE,
    DROP,
    GRANT,
    REJECT,
    RESULT,
    RESULT_RECORD,
    REVOKE,
    SCORE,
    WORK,
    WORK_RECORD,
)
from distbelief.algorithms.sandblaster.portions import Portions
from distbelief.comm.endpoint import Endpoint, Envelope, Request, Window
from distbelief.kernels import all_finite, sgd
from distbelief.nn.arena import Arena
from distbelief.server.messages import record
from distbelief.server.placement import Placement
from distbelief.server.staging import ship
from distbelief.server.vectors import read_parameters

# Finished portions whose verdicts may be on their way while the next is computed.
MOST_FINISHED = 1
# A replica with something to do says so at least so often, in timeouts.
SIGN_OF_LIFE = 1 / 16


@dataclass
class Task:
    """A portion that the replica is at, or has in its queue."""

    score: bool
    evaluation: int
    portion: int
    point: int
    batches: object = None
    gradient: Arena | None = None
    """Summed over the examples so far."""
    losses: list[float] = field(default_factory=list)
    right: float | None = 0
    examples: int = 0
    seconds: float = 0.0

    @property
    def name(self) -> tuple[int, int]:
        return self.evaluation, self.portion


class Replica:
    """A part of its rank's loop (algorithms.loop): between two minibatches it listens. All methods are Local."""

    tags = (WORK,)
    finished = False

    def __init__(
        self,
        endpoint: Endpoint,
        window: Window,
        placement: Placement,
        shards: Sequence[int],
        coordinator: int,
        number: int,
        model: Model,
        training: tuple[Examples, Portions],
        held_out: tuple[Examples, Portions],
        timeout: float,
    ):
        """`shards`: the rank of each; `number`: of this replica."""
        self._endpoint = endpoint
        self._window = window
        self._placement = placement
        self._shards = shards
        self._coordinator = coordinator
        self._number = number
        self._model = model
        self._data = {False: training, True: held_out}  # by whether it is a SCORE
        self._timeout = timeout
        self._parameters = Arena(model.layout, model.dtype)
        self._minibatch = Arena(model.layout, model.dtype)
        self._point = -1  # what `_parameters` are
        self._queue: deque[Task] = deque()
        self._task: Task | None = None
        self._finished: dict[tuple[int, int], Arena | None] = {}  # portions whose verdict is on its way
        self._sum: Arena | None = None
        self._in_sum: list[int] = []
        self._shipping: list[tuple[list[Request], Arena]] = []
        self._spare: list[Arena] = []
        self._sending: list[Request] = []
        self._spoke = endpoint.clock()
        self._idle_since: float | None = endpoint.clock()
        self._seconds_idle = 0.0
        self._bytes_fetched = 0

    def take(self, envelope: Envelope | None) -> None:
        """Hear everything that the coordinator has said."""
        while envelope is not None:
            said = np.zeros(1, WORK_RECORD)
            receiving = self._endpoint.receive(said, envelope.source, WORK)
            self._endpoint.wait_all([receiving], self._timeout, f"an order of rank {envelope.source}")
            self._obey(said[0])
            envelope = self._endpoint.probe(self._coordinator, WORK)

    def work(self) -> float:
        """A minibatch of the portion at hand; returns 0 while there is more to do, else the seconds to rest."""
        self._reclaim()
        if self._task is None and self._queue and len(self._finished) <= MOST_FINISHED:
            self._begin(self._queue.popleft())
        now = self._endpoint.clock()
        silent = now - self._spoke
        if (self._task or self._shipping) and silent >= SIGN_OF_LIFE * self._timeout:
            self._say(ALIVE)
        if self._task is None:
            if self._idle_since is None:
                self._idle_since = now
            return max(SIGN_OF_LIFE * self._timeout - silent, 0.0) if self._shipping else math.inf
        if self._idle_since is not None:
            self._seconds_idle += now - self._idle_since
            self._idle_since = None
        self._compute()
        return 0.0

    def _obey(self, said: np.void) -> None:
        kind, name = int(said["kind"]), (int(said["evaluation"]), int(said["portion"]))
        if kind in (ASSIGN, SCORE):
            # One that we have finished meanwhile was given up and is given again: our report is the answer to that.
            if name not in self._finished:
                task = Task(kind == SCORE, *name, int(said["point"]))
                self._queue.append(task)
                examples, portions = self._data[task.score]
                examples.read_ahead(portions.positions(task.portion))
        elif kind == ACCEPT:
            self._add(name[1], self._finished.pop(name))
        elif kind == REJECT:
            self._give_back(self._finished.pop(name))
        elif kind == DROP:
            self._queue = deque(task for task in self._queue if task.name != name)
            if self._task is not None and self._task.name == name:
                self._leave_task()
        elif kind == GRANT:
            self._ship(int(said["shipment"]))
        elif kind == REVOKE:
            self._give_back(self._sum)
            self._sum, self._in_sum = None, []
            self._say(ALIVE)
        else:
            raise RuntimeError(f"replica on rank {self._endpoint.rank}: an order of unknown kind {kind}")

    def _begin(self, task: Task) -> None:
        if task.point != self._point:
            # Parameters that a late fetch brings may be newer: then the evaluation is over, and nothing of it counts.
            self._fetch()
            self._point = task.point
        examples, portions = self._data[task.score]
        task.batches = examples.read(portions.positions(task.portion))
        self._task = task

    def _fetch(self) -> None:
        into = self._parameters.flat
        read_parameters(self._endpoint, self._window, self._placement, self._shards, into, self._timeout)
        self._bytes_fetched += self._parameters.flat.nbytes

    def _compute(self) -> None:
        """One minibatch: of a mean the sum."""
        task, began = self._task, self._endpoint.clock()
        batch = next(task.batches)
        if task.score:
            loss, right = self._model.score(self._parameters, batch)
            task.losses.append(loss)
            task.right = None if right is None or task.right is None else task.right + right
            self._endpoint.charge(flops=self._model.flops(batch.size))
        else:
            first = task.gradient is None
            if first:
                task.gradient = self._buffer()
            into = task.gradient if first else self._minibatch
            task.losses.append(self._model.gradient(self._parameters, batch, into) * batch.size)
            if first:
                into.flat[:] *= batch.size
            else:
                sgd(task.gradient.flat, into.flat, -batch.size)
            self._endpoint.charge(
                flops=3 * self._model.flops(batch.size), nbytes=(2 if first else 3) * into.flat.nbytes
            )
        task.examples += batch.size
        task.seconds += self._endpoint.clock() - began
        if task.examples == self._data[task.score][1].count(task.portion):
            self._finish(task)

    def _finish(self, task: Task) -> None:
        loss = math.fsum(task.losses) if all(map(math.isfinite, task.losses)) else math.nan
        if task.gradient is not None and not all_finite(task.gradient.flat):
            loss = math.nan
        self._finished[task.name], task.gradient = task.gradient, None
        self._say(
            DONE,
            evaluation=task.evaluation,
            portion=task.portion,
            examples=task.examples,
            loss=loss,
            right=math.nan if task.right is None else task.right,
            seconds=task.seconds,
        )
        self._leave_task()

    def _leave_task(self) -> None:
        self._give_back(self._task.gradient)
        self._task = None

    def _add(self, portion: int, gradient: Arena | None) -> None:
        """Count a portion that has been accepted; of a SCORE there is nothing more to do."""
        if gradient is None:
            return
        self._in_sum.append(portion)
        if self._sum is None:
            self._sum = gradient
        else:
            sgd(self._sum.flat, gradient.flat, -1.0)
            self._endpoint.charge(nbytes=3 * gradient.flat.nbytes)
            self._give_back(gradient)

    def _ship(self, shipment: int) -> None:
        requests = ship(self._endpoint, self._placement, self._shards, shipment, self._in_sum, self._sum.flat)
        self._shipping.append((requests, self._sum))
        self._sum, self._in_sum = None, []

    def _buffer(self) -> Arena:
        return self._spare.pop() if self._spare else Arena(self._model.layout, self._model.dtype)

    def _give_back(self, buffer: Arena | None) -> None:
        if buffer is not None:
            self._spare.append(buffer)

    def _reclaim(self) -> None:
        """Take back the buffers of shipments that have left."""
        under_way = []
        for requests, total in self._shipping:
            requests[:] = [request for request in requests if not request.done()]
            if requests:
                under_way.append((requests, total))
            else:
                self._give_back(total)
        self._shipping = under_way

    def _say(self, kind: int, **fields) -> None:
        self._spoke = self._endpoint.clock()
        said = record(
            RESULT_RECORD,
            kind=kind,
            replica=self._number,
            seconds_idle=self._seconds_idle,
            bytes_fetched=self._bytes_fetched,
            **fields,
        )
        self._sending = [request for request in self._sending if not request.done()]
        self._sending.append(self._endpoint.send(said, self._coordinator, RESULT))
