"""A replica's own copy of the parameters: fetched, stepped, and its gradients accrued and pushed, piece by piece."""

import math

import numpy as np

from distbelief.algorithms.model import Batch, Model, takes_accruals, takes_hooks
from distbelief.algorithms.returned import Leaving, ReturnedArena
from distbelief.algorithms.step import Pieces, Step
from distbelief.comm.endpoint import Endpoint
from distbelief.kernels import all_finite, sgd
from distbelief.nn.accrual import Accrual, accrue_and_step
from distbelief.nn.arena import Arena
from distbelief.server import Client, Fetch, Push, held
from distbelief.server.held import BFLOAT16


class LocalCopy:
    """The state of the paper's client loop. All methods are Local.

    A step goes by pieces (server.pieces). What has been fetched of a piece is brought in just before its layer
    computes with it; once its gradient is final, it is accrued and, in a step that pushes, sent off, while the layers
    below still compute. Two buffers take turns: gradients accrue in one, while a push is on its way from the other. The
    first gradient after a push is written straight into the one that accrues. A model that can (nn.Accrual) takes in
    each gradient, and the step, by itself.

    The parameters are in the model's type, or in `model.held` if it has that: bfloat16 (server.held).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        client: Client,
        model: Model,
        rate: float,
        leaving: Leaving | None = None,
        several: bool = False,
    ):
        """`rate`: of the local step. `leaving`: gives the memory of gradients back once they are sent, for which every
        step must push, and the rate be 0. `several`: steps may accrue before they are pushed."""
        self.parameters = Arena(model.layout, getattr(model, "held", model.dtype))
        self._narrow = self.parameters.flat.dtype == BFLOAT16
        self.finite = True
        """Whether every loss and gradient has been; what is not is never pushed."""
        self._endpoint = endpoint
        self._client = client
        self._model = model
        self._rate = rate
        self._by_layers = takes_hooks(model.gradient)
        # Whether the model can take in its gradients by itself; and whether it does in this step.
        self._takes_in, self._at_once = takes_accruals(model.gradient), False
        self._pieces = Pieces(model.layout, client.pieces)
        self._leaving = leaving
        kind = Arena if leaving is None else ReturnedArena
        self._accrued, self._spare = (kind(model.layout, model.dtype) for _ in range(2))
        self._gradient = Arena(model.layout, model.dtype) if several else None  # that is to be accrued
        self._steps = 0  # accrued
        # By piece, a gradient whose step is still to be taken: values fetched until then have it by the client's
        # invariant, and spare the pass.
        self._owed: dict[int, np.ndarray] = {}
        self._fetch: Fetch | None = None
        self._push: Push | None = None
        self._counts = self._accrued_counts = np.zeros(0, np.int64)
        self._wait = self._push_begun = self._owes = False
        self._clock: int | None = None

    def start_fetching(self) -> None:
        """Start to fetch the parameters; a fetch still under way is waited for."""
        self._settle()
        self._fetch = self._client.fetch()
        if not self._counts.size:  # the first one
            self._counts = self._client.counts(self._fetch)

    def refresh(self) -> None:
        """Fetch the parameters, and wait for them."""
        self.start_fetching()
        self._settle()

    def show(self, masters: Client) -> None:
        """Let `parameters` be the shards' own, to be tried, without steps that shards have not had yet. `masters`: a
        client that only reads. `refresh` brings those steps back."""
        self._settle()
        masters.install(masters.fetch(), self.parameters.flat)

    def step(self, batch: Batch, wait: bool, clock: int | None, fetched_next: bool = False) -> float:
        """accrued += gradient of `batch`, parameters -= rate gradient; returns the loss.

        `wait`: for what has not been fetched yet when it is needed; else it is brought in by a later step. `clock`:
        push what has accrued, with this clock; None: not in this step. `fetched_next`: a fetch is started before the
        next step, and will bring most of the parameters anew.
        """
        written = self._accrued = self._fresh() if self._steps == 0 else self._accrued
        if self._steps:
            assert self._gradient is not None, "made for steps that all push"
            written = self._gradient
        self._wait, self._clock, self._push_begun = wait, clock, False
        # Owed is a gradient that the next step does not write over: after a push it begins in the other buffer.
        self._owes = fetched_next and clock is not None
        step = Step(self._endpoint, self._pieces, self._model.flops(batch.size), self._bring, self._finish)
        # Of a push of this step alone there is nothing to take in but the step, which a fetch would bring.
        self._at_once = self._takes_in and (self._gradient is not None or bool(self._rate and not fetched_next))
        if self._at_once:
            accrual = Accrual(self._accrued, fresh=self._steps == 0, rate=self._rate)
            loss = self._model.gradient(self.parameters, batch, written, step.needed, step.produced, accrual)
        elif self._by_layers:
            loss = self._model.gradient(self.parameters, batch, written, step.needed, step.produced)
        else:
            step.needed(*self._pieces.of)
            loss = self._model.gradient(self.parameters, batch, written)
        self.finite = self.finite and math.isfinite(loss)
        step.end(good=self.finite)
        self._steps = self._steps + 1 if clock is None else 0
        return loss

    def flush(self, clock: int) -> None:
        """Push what is left, and wait until the shards have applied everything."""
        self._settle()
        if self._steps:
            self._clock, self._push_begun, self._steps = clock, False, 0
            for number in range(len(self._client.pieces)):
                self._send(number)
        if self._push is not None:
            self._client.wait_push(self._push)

    def _bring(self, number: int) -> None:
        """Before a piece is needed: install it as fetched, or take the step that is owed."""
        if self._fetch is not None and self._install([number], self._wait):
            return
        owed, piece = self._owed.pop(number, None), self._client.pieces[number]
        if owed is not None and self._rate:
            (held.step if self._narrow else sgd)(piece.of(self.parameters.flat), owed, self._rate)
            self._endpoint.charge(nbytes=3 * owed.nbytes)

    def _finish(self, number: int, known: bool) -> None:
        """The gradient of a piece is final: take it in. `known`: to be finite."""
        piece = self._client.pieces[number]
        accrued = piece.of(self._accrued.flat)
        if self._steps == 0:
            self._accrued_counts = self._counts
        if self._at_once or self._steps == 0:
            finite, passes = (True, 0) if known else (all_finite(accrued), 1)
            if self._at_once:
                passes += 2 if self._steps == 0 else 3  # besides writing the gradient, that there is no need for
            else:
                self._owed[number] = accrued
        else:
            gradient, rate = piece.of(self._gradient.flat), 0.0 if self._owes else self._rate
            finite = accrue_and_step(piece.of(self.parameters.flat), accrued, gradient, rate)
            passes = 5 if rate else 3
            if self._owes:
                self._owed[number] = gradient
        self._endpoint.charge(nbytes=passes * accrued.nbytes)
        self.finite = self.finite and finite
        if self._clock is not None and self.finite:
            self._send(number)

    def _send(self, number: int) -> None:
        """Push a piece of what has accrued. Before the first, the push before is waited for."""
        if not self._push_begun:
            if self._push is not None:
                self._client.wait_push(self._push)
            self._push = self._client.begin_push(self._accrued.flat, self._accrued_counts, self._clock)
            self._push_begun = True
        self._client.send(self._push, number)
        if self._leaving is not None:
            piece = self._client.pieces[number]
            request = self._push.requests[-1]
            self._leaving.add(request, self._accrued, piece.offset, piece.offset + piece.size)

    def _fresh(self) -> Arena:
        """The buffer that is not being pushed, to accrue in."""
        self._accrued, self._spare = self._spare, self._accrued
        if self._client.holds(self._accrued.flat):
            self._settle()  # a fetch under way may lack it
            assert not self._client.holds(self._accrued.flat), "its push was waited for before the next began"
        return self._accrued

    def _settle(self) -> None:
        """Wait for all that is missing of a fetch."""
        if self._fetch is not None:
            self._install(None, wait=True)

    def _install(self, numbers: list[int] | None, wait: bool) -> bool:
        """Install pieces of the fetch under way; False if none of them was missing and there."""
        accrued = self._accrued.flat if self._steps else None
        fetch = self._fetch
        installed = self._client.install(fetch, self.parameters.flat, accrued, self._rate, numbers, wait)
        for number in installed:
            self._owed.pop(number, None)
            self._endpoint.charge(nbytes=3 * self._client.pieces[number].of(self.parameters.flat).nbytes)
        if not fetch.missing:
            self._counts = self._client.counts(fetch)
            self._fetch = None
        return bool(installed)
