"""What a rank of a replica computes with, and holds: parameters, gradients of portions, their sum for the shards.

A replica on one rank has one worker. On several, each rank's has its partition of everything, and all do the same in
the same order: the head says what (replica.py), the others follow (follower.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from distbelief.algorithms.model import Examples, Model, accruing
from distbelief.algorithms.sandblaster.messages import ACCEPT, ASSIGN, DROP, GRANT, REJECT, REVOKE, SCORES, STEP
from distbelief.algorithms.sandblaster.portions import Portions
from distbelief.comm.endpoint import Endpoint, Request, Window
from distbelief.kernels import all_finite, sgd
from distbelief.nn.accrual import Accrual
from distbelief.nn.arena import Arena
from distbelief.partition import Peers
from distbelief.server.held import BFLOAT16, install
from distbelief.server.placement import Interval, Placement
from distbelief.server.staging import ship
from distbelief.server.vectors import read_parameters

Name = tuple[int, int]
"""Of a portion at work: its evaluation, its number."""


@dataclass
class Task:
    """The portion at hand."""

    kind: int
    evaluation: int
    portion: int
    batches: object
    gradient: Arena | None = None
    """Summed over the examples so far."""
    losses: list[float] = field(default_factory=list)
    right: float | None = 0
    examples: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    """Once all examples are through: their sum; NaN if it or the gradient is not finite, on any rank."""

    @property
    def name(self) -> Name:
        return self.evaluation, self.portion


class Worker:
    """All methods are Local; on a replica of several ranks they go together on all of them."""

    def __init__(
        self,
        endpoint: Endpoint,
        window: Window,
        placement: Placement,
        shards: Sequence[int],
        model: Model,
        data: Mapping[int, tuple[Examples, Portions]],
        timeout: float,
        peers: Peers | None = None,
        intervals: Sequence[Interval] | None = None,
    ):
        """`shards`: the rank of each; `data`: by kind of work (messages: ASSIGN, SCORE, TEST).

        `peers`, `intervals`: of a partition: the ranks of the replica, and what of the flat vector the partition has.
        """
        self._endpoint = endpoint
        self._window = window
        self._placement = placement
        self._shards = shards
        self._model = model
        self._gradient = accruing(model)
        self._data = data
        self._timeout = timeout
        self._peers = peers
        self._intervals = [Interval(0, placement.size)] if intervals is None else intervals
        # In the model's type, or in that of `model.held`, if it has that: bfloat16.
        self._parameters = Arena(model.layout, getattr(model, "held", model.dtype))
        self._minibatch = Arena(model.layout, model.dtype)
        self._point = -1  # what `_parameters` are
        self.task: Task | None = None
        """The portion at hand."""
        self.finished: dict[Name, Arena | None] = {}
        """Portions whose verdict is on its way."""
        self._sum: Arena | None = None
        self._in_sum: list[int] = []
        self._shipping: list[tuple[list[Request], Arena]] = []
        self._spare: list[Arena] = []
        self.bytes_fetched = 0
        """By all ranks of the replica."""

    @property
    def ships(self) -> bool:
        """Whether a sum is on its way."""
        return bool(self._shipping)

    def read_ahead(self, kind: int, portion: int) -> None:
        """This portion will be worked on soon."""
        examples, portions = self._data[kind]
        examples.read_ahead(portions.positions(portion))

    def carry_out(self, order: np.void) -> Task | None:
        """Do what is said (messages.WORK_RECORD). Returns the task that has been finished by it, if one has."""
        kind, name = int(order["kind"]), (int(order["evaluation"]), int(order["portion"]))
        if kind in (ASSIGN, *SCORES):
            self._begin(kind, *name, int(order["point"]))
        elif kind == STEP:
            return self._step()
        elif kind == DROP:
            self._leave_task()
        elif kind == ACCEPT:
            self._add(name[1], self.finished.pop(name))
        elif kind == REJECT:
            self._give_back(self.finished.pop(name))
        elif kind == GRANT:
            self._ship(int(order["shipment"]))
        elif kind == REVOKE:
            self._give_back(self._sum)
            self._sum, self._in_sum = None, []
        else:
            raise RuntimeError(f"replica on rank {self._endpoint.rank}: an order of unknown kind {kind}")
        return None

    def reclaim(self) -> None:
        """Take back the buffers of shipments that have left."""
        under_way = []
        for requests, total in self._shipping:
            requests[:] = [request for request in requests if not request.done()]
            if requests:
                under_way.append((requests, total))
            else:
                self._give_back(total)
        self._shipping = under_way

    def _begin(self, kind: int, evaluation: int, portion: int, point: int) -> None:
        if point != self._point:
            # Parameters that a late fetch brings may be newer: then the evaluation is over, and nothing of it counts.
            self._fetch()
            self._point = point
        examples, portions = self._data[kind]
        self.task = Task(kind, evaluation, portion, examples.read(portions.positions(portion)))

    def _fetch(self) -> None:
        narrow = self._parameters.flat.dtype == BFLOAT16
        into = (self._minibatch if narrow else self._parameters).flat
        read_parameters(
            self._endpoint, self._window, self._placement, self._shards, into, self._timeout, self._intervals
        )
        if narrow:
            install(into, [], 0.0, self._parameters.flat)
        self.bytes_fetched += self._placement.size * into.itemsize

    def _step(self) -> Task | None:
        """One minibatch: of a mean the sum."""
        task, began = self.task, self._endpoint.clock()
        batch = next(task.batches)
        if task.kind == ASSIGN:
            self._add_gradient(task, batch)
        else:
            loss, right = self._model.score(self._parameters, batch)
            task.losses.append(loss)
            task.right = None if right is None or task.right is None else task.right + right
            self._endpoint.charge(flops=self._model.flops(batch.size))
        task.examples += batch.size
        task.seconds += self._endpoint.clock() - began
        return self._finish(task) if task.examples == self._data[task.kind][1].count(task.portion) else None

    def _add_gradient(self, task: Task, batch) -> None:
        first = task.gradient is None
        if first:
            task.gradient = self._spare.pop() if self._spare else Arena(self._model.layout, self._model.dtype)
        accrual = Accrual(task.gradient, fresh=first, weight=batch.size)
        loss = self._gradient(self._parameters, batch, self._minibatch, accrual)
        task.losses.append(loss * batch.size)
        passes = (2 if first else 3) * task.gradient.flat.nbytes
        self._endpoint.charge(flops=3 * self._model.flops(batch.size), nbytes=passes)

    def _finish(self, task: Task) -> Task:
        finite = all(map(math.isfinite, task.losses))
        if task.gradient is not None:
            finite = finite and all_finite(task.gradient.flat)
            if self._peers is not None:
                everywhere = self._peers.share(np.array([finite]), f"whether portion {task.portion} is finite")
                self._peers.settle()
                finite = bool(everywhere.all())
        task.loss = math.fsum(task.losses) if finite else math.nan
        self.finished[task.name], task.gradient = task.gradient, None
        self._leave_task()
        return task

    def _leave_task(self) -> None:
        self._give_back(self.task.gradient)
        self.task = None

    def _add(self, portion: int, gradient: Arena | None) -> None:
        """Count a portion that has been accepted; of a score there is nothing more to do."""
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
        total = self._sum
        requests = ship(
            self._endpoint, self._placement, self._shards, shipment, self._in_sum, total.flat, self._intervals
        )
        self._shipping.append((requests, total))
        self._sum, self._in_sum = None, []

    def _give_back(self, buffer: Arena | None) -> None:
        if buffer is not None:
            self._spare.append(buffer)
