"""A model replica of Downpour SGD: the client loop of the paper (Dean et al. 2012, Algorithm 1.1)."""

import itertools
import math

from distbelief.algorithms.coordination import (
    END,
    FAULT,
    FINISHED,
    GIVE_UP,
    HELD_OUT,
    LEAVE,
    PROGRESS,
    SCORED,
    SCORING,
    START,
    STOP,
    Orders,
    report,
)
from distbelief.algorithms.local import LocalCopy
from distbelief.algorithms.model import Model, Problem
from distbelief.algorithms.returned import Leaving
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.scoring import scoring
from distbelief.algorithms.settings import Downpour, Stop
from distbelief.algorithms.unison import EVALUATE, FLUSH, STATUS, STEP, Unison
from distbelief.algorithms.warmstart import starts
from distbelief.comm.endpoint import Endpoint
from distbelief.server import Client
from distbelief.server.messages import record

# A replica reports at least so often (seconds): for the progress line, and as a sign of life.
REPORT_SECONDS = 0.5


class Replica:
    """One replica on one rank, or one partition of it. All methods are Local, but go together on all its ranks."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: Client,
        orders: Orders,
        roles: Roles,
        problem: Problem,
        model: Model,
        downpour: Downpour,
        stop: Stop,
        local_rate: float,
        report_examples: float,
        timeout: float,
        lead: int | None = None,
        masters: Client | None = None,
    ):
        """`model`: this rank's, the whole or a partition; `local_rate`: of the local step.

        `report_examples`: report at least once in so many examples; `lead`: steps that this replica may be ahead of the
        slowest, None for any. `masters`: reads what evaluations try; None if others make them.
        """
        self._endpoint = endpoint
        self._client = client
        self._masters = masters
        self._orders = orders
        self._coordinator = roles.coordinator
        self._number = roles.place(endpoint.rank).replica
        self._unison = Unison(endpoint, orders, roles.ranks[self._number], timeout)
        self._timeout = timeout
        self._downpour = downpour
        # Clocks are told with pushes, so that others know of them n_push - 1 steps late at most.
        self._lead = None if lead is None else lead + downpour.n_push - 1
        replicas = len(roles.replicas)
        self._first_clock = 0
        # Others wait for these steps of replica 0.
        self._awaited = set(starts(downpour, replicas)) if self._number == 0 else set()
        self._epochs = itertools.count() if stop.epochs is None else range(stop.epochs)
        self._problem = problem
        self._model = model
        self._data = problem.batches(self._number, replicas)
        leaving = Leaving(endpoint, timeout) if downpour.lean else None
        self._local = LocalCopy(endpoint, client, model, local_rate, leaving, downpour.n_push > 1)
        self._step = 0
        self._examples = 0
        self._loss = math.nan
        self._began = endpoint.clock()
        self._report_examples = report_examples
        self._reported = (0, endpoint.clock())

    def run(self) -> None:
        """Train until the epochs are over or the coordinator orders to stop, then wait for its leave to end."""
        self._rest(START, STOP)
        self._first_clock = self._unison.clock
        self._began = self._endpoint.clock()
        good = self._train() == FLUSH
        if good:
            self._local.flush(self._clock)
        self._client.leave()
        self._unison.gather(self._status())
        self._report(FINISHED if good else FAULT)
        self._rest(END, GIVE_UP, LEAVE)
        self._orders.wait(END, GIVE_UP, LEAVE)

    def _train(self) -> int:
        """The paper's loop. Returns why it ended: FLUSH, or FAULT for a number that is not finite."""
        local, n_fetch, n_push = self._local, self._downpour.n_fetch, self._downpour.n_push
        for epoch in self._epochs:
            for batch in self._data.epoch(epoch):
                if (word := self._next()) != STEP:
                    return word
                if self._lead is not None:
                    self._client.wait_for_the_slowest(self._clock, self._lead)
                if self._step % n_fetch == 0:
                    local.start_fetching()
                wait = self._step == 0 or not self._downpour.overlap
                self._step += 1
                clock = self._clock if self._step % n_push == 0 else None
                self._loss = local.step(batch, wait, clock, self._step % n_fetch == 0)
                if local.finite:
                    self._examples += batch.size
                    self._report_if_due()
        return self._next(enough=True)

    @property
    def _clock(self) -> int:
        """Steps since replica 0's time alone; a replica that started later counts as if it had started then."""
        if self._number == 0:
            return max(self._step - self._downpour.warmstart, 0)
        return self._first_clock + self._step

    def _next(self, enough: bool = False) -> int:
        """What comes next for all ranks of the replica (unison); evaluations are done with."""
        while (word := self._unison.next(self._status(), enough)) == EVALUATE:
            self._score()
        return word

    def _rest(self, *kinds: int) -> None:
        """Nothing but evaluations, until one of `kinds` is ordered."""
        while self._unison.rest(*kinds) == EVALUATE:
            self._score()

    def _score(self) -> None:
        """Try the shards' parameters on the examples that the coordinator asks about."""
        self._local.show(self._masters)
        batches = self._problem.held_out() if self._unison.which == HELD_OUT else self._problem.test()
        scores = scoring(self._model, self._local.parameters, batches, self._endpoint.charge)
        while True:
            try:
                next(scores)
            except StopIteration as end:
                loss, accuracy = end.value
                break
            if self._endpoint.clock() - self._reported[1] >= REPORT_SECONDS:
                self._report(SCORING)
        self._local.refresh()
        self._report(SCORED, loss=loss, accuracy=math.nan if accuracy is None else accuracy)

    def _status(self):
        return record(
            STATUS,
            finite=self._local.finite,
            bytes_fetched=self._client.bytes_fetched,
            bytes_pushed=self._client.bytes_pushed,
            seconds_fetching=self._client.seconds_fetching,
            seconds_pushing=self._client.seconds_pushing,
        )

    def _report_if_due(self) -> None:
        examples, time = self._reported
        now = self._endpoint.clock()
        if self._examples - examples >= self._report_examples or now - time >= REPORT_SECONDS:
            self._report(PROGRESS)
        elif self._step in self._awaited:
            self._report(PROGRESS)

    def _report(self, kind: int, **fields: float) -> None:
        """The head tells the coordinator how its replica is: bytes of all partitions, seconds of one on average."""
        if not self._unison.leads:
            return
        self._reported = (self._examples, self._endpoint.clock())
        told = self._unison.statuses
        fields = {"loss": self._loss} | fields
        report(
            self._endpoint,
            self._coordinator,
            self._timeout,
            kind,
            replica=self._number,
            step=self._step,
            examples=self._examples,
            bytes_fetched=told["bytes_fetched"].sum(),
            bytes_pushed=told["bytes_pushed"].sum(),
            seconds=self._endpoint.clock() - self._began,
            seconds_fetching=told["seconds_fetching"].mean(),
            seconds_pushing=told["seconds_pushing"].mean(),
            **fields,
        )
