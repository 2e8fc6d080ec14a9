"""Evaluations of a network that is cut over the ranks of a replica: done by replica 0, whose ranks together hold it."""

import math
from collections.abc import Callable

import numpy as np

from distbelief.algorithms.coordination import HELD_OUT, SCORED, TEST
from distbelief.algorithms.evaluator import Pieces, shards_tell
from distbelief.algorithms.keeper import Keeper
from distbelief.algorithms.ledger import Ledger
from distbelief.algorithms.model import Problem
from distbelief.algorithms.progress import Evaluation, Fault
from distbelief.comm.endpoint import DeadlineExpired, Endpoint
from distbelief.server import Client


class Delegate:
    """Has replica 0 evaluate, and keeps what was found good (see evaluator.Evaluates).

    The coordinator's rank never holds the parameters: it hands them to the keeper piece by piece, as they are on the
    shards right after an evaluation whose loss was finite. At the end nobody moves them any more, and what is kept is
    what was evaluated.
    """

    holds_back = True

    def __init__(
        self,
        endpoint: Endpoint,
        client: Client,
        problem: Problem,
        ledger: Ledger,
        keeper: Keeper,
        order: Callable[[int], None],
        timeout: float,
    ):
        """`order(which)`: tells replica 0 to score HELD_OUT or TEST; `timeout`: seconds that it may be silent."""
        self._endpoint = endpoint
        self._client = client
        self._problem = problem
        self._ledger = ledger
        self._keeper = keeper
        self._order = order
        self._timeout = timeout
        self._said: np.void | None = None
        self._heard = endpoint.clock()
        self.latest: Evaluation | None = None
        self.test_score: tuple[float, float | None] | None = None

    @property
    def good(self):
        return self._keeper.parameters

    def first(self, timeout: float) -> Pieces:
        return self.start(0.0)

    def start(self, seconds: float) -> Pieces:
        accounts = self._ledger.accounts(seconds)
        before = self._client.records()
        loss, accuracy = yield from self._score(HELD_OUT)
        shards = shards_tell(before, self._client.records())
        finite = math.isfinite(loss)
        if finite or self.latest is None:
            yield from self._keep()
        if not finite:
            return Fault(None, accounts["step"], loss)
        self.latest = Evaluation(loss=loss, accuracy=accuracy, **accounts, **shards)
        return self.latest

    def test(self) -> Pieces | None:
        return None if self._problem.test() is None else self._test()

    def take(self, report: np.void) -> None:
        self._heard = self._endpoint.clock()
        if report["kind"] == SCORED:
            self._said = report.copy()

    def _test(self) -> Pieces:
        self.test_score = yield from self._score(TEST)
        return None

    def _score(self, which: int):
        self._said, self._heard = None, self._endpoint.clock()
        self._order(which)
        while self._said is None:
            silence = self._endpoint.clock() - self._heard
            if silence >= self._timeout:
                raise DeadlineExpired(
                    f"rank {self._endpoint.rank} waited {silence:.0f} s for an evaluation of replica 0"
                )
            yield self._timeout - silence
        loss, accuracy = float(self._said["loss"]), float(self._said["accuracy"])
        return loss, None if math.isnan(accuracy) else accuracy

    def _keep(self):
        self._keeper.begin()
        for start, values in self._client.stream():
            self._keeper.add(start, values)
            yield 0.0
        self._keeper.end()
