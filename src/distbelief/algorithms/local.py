"""A replica's own copy of the parameters: fetched, stepped, and its gradients accrued for the next push."""

import numpy as np

from distbelief.algorithms.model import Model
from distbelief.comm.endpoint import Endpoint
from distbelief.kernels import accrue, all_finite, sgd
from distbelief.nn.arena import Arena
from distbelief.server import Client, Fetch, Push


class LocalCopy:
    """The state of the paper's client loop, with a method for each of its lines. All methods are Local.

    Three buffers take turns: the model writes a gradient into one, gradients accrue in the second, a push is on its
    way from the third. The first gradient after a push becomes the accrued one by changing names, without a pass.
    """

    def __init__(self, endpoint: Endpoint, client: Client, model: Model, rate: float):
        """`rate`: of the local step."""
        self.parameters = Arena(model.layout, model.dtype)
        self.gradient = Arena(model.layout, model.dtype)
        self._accrued = Arena(model.layout, model.dtype)
        self._spare = Arena(model.layout, model.dtype)
        self._endpoint = endpoint
        self._client = client
        self._rate = rate
        self._steps = 0  # accrued
        self._owed: np.ndarray | None = None  # a gradient whose step is still to be taken
        self._fetch: Fetch | None = None
        self._push: Push | None = None
        self._counts = self._accrued_counts = np.zeros(0, np.int64)

    def start_fetching(self) -> None:
        """Start to fetch the parameters; a fetch still under way is waited for."""
        self._install(wait=True)
        self._fetch = self._client.fetch()

    def refresh(self, wait: bool) -> None:
        """Before a gradient: bring in what has been fetched (`wait`: for a fetch under way), or the step still owed."""
        self._install(wait)
        if self._owed is not None:
            sgd(self.parameters.flat, self._owed, self._rate)
            self._endpoint.charge(nbytes=3 * self.parameters.flat.nbytes)
            self._owed = None

    def step(self) -> bool:
        """Take in the gradient: accrued += gradient, parameters -= rate gradient.

        Returns whether all its numbers are finite; one that is not must never be pushed. After a push the step is
        owed until `refresh`: values fetched until then have it by the client's invariant, and spare the pass.
        """
        if self._steps == 0:
            self.gradient, self._accrued = self._accrued, self.gradient
            finite = all_finite(self._accrued.flat)
            self._owed, passes = self._accrued.flat, 1
        else:
            finite = accrue(self.parameters.flat, self._accrued.flat, self.gradient.flat, self._rate)
            passes = 5
        self._steps += 1
        self._endpoint.charge(nbytes=passes * self.parameters.flat.nbytes)
        return finite

    def start_pushing(self, clock: int) -> None:
        """Start to push the accrued gradient; the push before is waited for, since accruing goes on in its buffer."""
        if self._push is not None:
            # A fetch under way may lack that push, and then needs its buffer to be brought in.
            self._install(wait=True)
            self._client.wait_push(self._push)
        self._push = self._client.push(self._accrued.flat, self._accrued_counts, clock)
        self._accrued, self._spare = self._spare, self._accrued
        self._steps = 0
        self._accrued_counts = self._counts

    def flush(self, clock: int) -> None:
        """Push what is left, and wait until the shards have applied everything."""
        self._install(wait=True)
        if self._steps:
            self.start_pushing(clock)
        if self._push is not None:
            self._client.wait_push(self._push)

    def _install(self, wait: bool) -> None:
        if self._fetch is None:
            return
        if wait:
            self._client.wait_fetch(self._fetch)
        elif not self._fetch.done():
            return
        accrued = self._accrued.flat if self._steps else None
        self._counts = self._client.install(self._fetch, self.parameters.flat, accrued, self._rate)
        self._fetch = None
        self._owed = None
        if not self._steps:
            self._accrued_counts = self._counts
