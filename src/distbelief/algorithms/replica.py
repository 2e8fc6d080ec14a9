"""A model replica of Downpour SGD: the client loop of the paper (Dean et al. 2012, Algorithm 1.1)."""

import itertools
import math

from distbelief.algorithms.coordination import FAULT, FINISHED, PROGRESS, START, STOP, Orders, report
from distbelief.algorithms.local import LocalCopy
from distbelief.algorithms.model import Problem
from distbelief.algorithms.settings import Downpour, Stop
from distbelief.algorithms.warmstart import clocks, starts
from distbelief.comm.endpoint import Endpoint
from distbelief.server import Client

# A replica reports at least so often (seconds): for the progress line, and as a sign of life.
REPORT_SECONDS = 0.5


class Replica:
    """One replica on one rank. All methods are Local."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: Client,
        orders: Orders,
        coordinator: int,
        number: int,
        replicas: int,
        problem: Problem,
        downpour: Downpour,
        stop: Stop,
        local_rate: float,
        report_examples: float,
        timeout: float,
        lead: int | None = None,
    ):
        """`local_rate`: of the local step; `report_examples`: report at least once in so many examples.

        `lead`: steps that this replica may be ahead of the slowest, None for any.
        """
        self._endpoint = endpoint
        self._client = client
        self._orders = orders
        self._coordinator = coordinator
        self._number = number
        self._timeout = timeout
        self._downpour = downpour
        # Clocks are told with pushes, so that others know of them n_push - 1 steps late at most.
        self._lead = None if lead is None else lead + downpour.n_push - 1
        self._first_clock = clocks(downpour, replicas)[number]
        # Others wait for these steps of replica 0.
        self._awaited = set(starts(downpour, replicas)) if number == 0 else set()
        self._epochs = itertools.count() if stop.epochs is None else range(stop.epochs)
        self._data = problem.batches(number, replicas)
        self._local = LocalCopy(endpoint, client, problem.model(), local_rate)
        self._step = 0
        self._examples = 0
        self._loss = math.nan
        self._report_examples = report_examples
        self._reported = (0, endpoint.clock())

    def run(self) -> None:
        """Train until the epochs are over or the coordinator orders to stop, then wait for its leave to end."""
        self._orders.wait(START, STOP)
        self._began = self._endpoint.clock()
        kind = FINISHED if self._train() else FAULT
        self._client.leave()
        self._report(kind)

    def _train(self) -> bool:
        """The paper's loop. False if it met a loss or gradient that is not finite."""
        local, n_fetch, n_push = self._local, self._downpour.n_fetch, self._downpour.n_push
        for epoch in self._epochs:
            for batch in self._data.epoch(epoch):
                if self._orders.stopped:
                    local.flush(self._clock)
                    return True
                if self._lead is not None:
                    self._client.wait_for_the_slowest(self._clock, self._lead)
                if self._step % n_fetch == 0:
                    local.start_fetching()
                wait = self._step == 0 or not self._downpour.overlap
                self._step += 1
                self._loss = local.step(batch, wait, self._clock if self._step % n_push == 0 else None)
                if not local.finite:
                    return False
                self._examples += batch.size
                self._report_if_due()
        local.flush(self._clock)
        return True

    @property
    def _clock(self) -> int:
        """Steps since replica 0's time alone; a replica that started later counts as if it had started then."""
        if self._number == 0:
            return max(self._step - self._downpour.warmstart, 0)
        return self._first_clock + self._step

    def _report_if_due(self) -> None:
        examples, time = self._reported
        now = self._endpoint.clock()
        if self._examples - examples >= self._report_examples or now - time >= REPORT_SECONDS:
            self._report(PROGRESS)
        elif self._step in self._awaited:
            self._report(PROGRESS)

    def _report(self, kind: int) -> None:
        self._reported = (self._examples, self._endpoint.clock())
        report(
            self._endpoint,
            self._coordinator,
            self._timeout,
            kind,
            replica=self._number,
            step=self._step,
            examples=self._examples,
            loss=self._loss,
            bytes_fetched=self._client.bytes_fetched,
            bytes_pushed=self._client.bytes_pushed,
            seconds=self._endpoint.clock() - self._began,
            seconds_fetching=self._client.seconds_fetching,
            seconds_pushing=self._client.seconds_pushing,
        )
