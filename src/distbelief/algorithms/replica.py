"""A model replica of Downpour SGD: the client loop of the paper (Dean et al. 2012, Algorithm 1.1)."""

import itertools
import math

import numpy as np

from distbelief.algorithms.coordination import FAULT, FINISHED, PROGRESS, START, STOP, Orders, report
from distbelief.algorithms.model import Problem
from distbelief.algorithms.settings import Downpour, Stop
from distbelief.comm.endpoint import Endpoint
from distbelief.kernels import accrue
from distbelief.nn.arena import Arena
from distbelief.server import Client, Fetch, Push

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
        self._rate = local_rate
        # Clocks are told with pushes, so that others know of them n_push - 1 steps late at most.
        self._lead = None if lead is None else lead + downpour.n_push - 1
        self._epochs = itertools.count() if stop.epochs is None else range(stop.epochs)
        self._data = problem.batches(number, replicas)
        self._model = problem.model()
        self._parameters = Arena(self._model.layout, self._model.dtype)
        self._gradient = Arena(self._model.layout, self._model.dtype)
        # While one buffer travels, gradients accrue in the other.
        self._accrued, self._spare = np.zeros_like(self._gradient.flat), np.zeros_like(self._gradient.flat)
        self._accrued_steps = 0
        self._fetch: Fetch | None = None
        self._push: Push | None = None
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
        n_fetch, n_push = self._downpour.n_fetch, self._downpour.n_push
        for epoch in self._epochs:
            for batch in self._data.epoch(epoch):
                if self._orders.stopped:
                    return self._flush()
                if self._lead is not None:
                    self._client.wait_for_the_slowest(self._clock, self._lead)
                if self._step % n_fetch == 0:
                    self._start_fetching()
                self._install_if_fetched(wait=self._step == 0)
                self._loss = self._model.gradient(self._parameters, batch, self._gradient)
                self._step += 1
                finite = accrue(self._parameters.flat, self._accrued, self._gradient.flat, self._rate)
                # The local step reads or writes five vectors.
                self._endpoint.charge(3 * self._model.flops(batch.size), 5 * self._parameters.flat.nbytes)
                if not (finite and math.isfinite(self._loss)):
                    return False
                self._accrued_steps += 1
                self._examples += batch.size
                if self._step % n_push == 0:
                    self._start_pushing()
                self._report_if_due()
        return self._flush()

    @property
    def _clock(self) -> int:
        """Steps since the end of the warmstart, when all replicas have been started."""
        return max(self._step - (self._downpour.warmstart if self._number == 0 else 0), 0)

    def _start_fetching(self) -> None:
        self._install_if_fetched(wait=True)
        self._fetch = self._client.fetch()

    def _install_if_fetched(self, wait: bool) -> None:
        """Between steps: what a finished fetch brought replaces the parameters."""
        if self._fetch is None:
            return
        if wait:
            self._client.wait_fetch(self._fetch)
        elif not self._fetch.done():
            return
        accrued = self._accrued if self._accrued_steps else None
        self._counts = self._client.install(self._fetch, self._parameters.flat, accrued, self._rate)
        self._fetch = None
        if not self._accrued_steps:
            self._accrued_counts = self._counts

    def _start_pushing(self) -> None:
        """Hand the accrued gradient to the client; accrue in the buffer of the push before, once that is applied."""
        if self._push is not None:
            # A fetch under way may lack that push, and then needs its buffer to be brought in.
            self._install_if_fetched(wait=True)
            self._client.wait_push(self._push)
        self._push = self._client.push(self._accrued, self._accrued_counts, self._clock)
        self._accrued, self._spare = self._spare, self._accrued
        self._accrued[:] = 0
        self._accrued_steps = 0
        self._accrued_counts = self._counts

    def _flush(self) -> bool:
        """Push what is left and wait until the shards have applied everything."""
        self._install_if_fetched(wait=True)
        if self._accrued_steps:
            self._start_pushing()
        if self._push is not None:
            self._client.wait_push(self._push)
        return True

    def _report_if_due(self) -> None:
        examples, time = self._reported
        now = self._endpoint.clock()
        if self._examples - examples >= self._report_examples or now - time >= REPORT_SECONDS:
            self._report(PROGRESS)
        elif self._step == self._downpour.warmstart and self._number == 0:
            self._report(PROGRESS)  # the others wait for it

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
