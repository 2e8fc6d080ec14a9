"""The coordinator's evaluations: the shards' parameters, tried on the held-out examples a batch at a time."""

import math
from collections.abc import Generator
from typing import Protocol

import numpy as np

from distbelief.algorithms.ledger import Ledger
from distbelief.algorithms.model import Problem
from distbelief.algorithms.progress import Evaluation, Fault
from distbelief.algorithms.scoring import scoring
from distbelief.comm.endpoint import DeadlineExpired, Endpoint
from distbelief.nn.arena import Arena
from distbelief.server import Client, Fetch
from distbelief.server.messages import EDGES

# Seconds until a fetch is looked at again, of which nothing had come.
PAUSE = 1e-3

Pieces = Generator[float, None, Evaluation | Fault | None]
"""An evaluation in small pieces: yields between them the seconds until there may be more to do; returns its result."""


class Evaluates(Protocol):
    """Who evaluates for the coordinator. All methods are Local."""

    holds_back: bool
    """Whether nobody may train before the first evaluation is through."""
    latest: Evaluation | None
    """The last one whose loss was finite."""
    good: Arena | None
    """Its parameters, or those that training began with. None: they are kept elsewhere."""
    test_score: tuple[float, float | None] | None
    """Loss and accuracy on the test examples, if they have been scored."""

    def first(self, timeout: float) -> Pieces:
        """Evaluate what training begins with. Nobody has moved the parameters yet."""
        ...

    def start(self, seconds: float) -> Pieces:
        """Evaluate the parameters as they are now. `seconds`: since training began."""
        ...

    def test(self) -> Pieces | None:
        """Score the test examples, at the end. None: the coordinator's caller does."""
        ...

    def take(self, report: np.void) -> None:
        """A replica says something of an evaluation (coordination.SCORING, SCORED)."""
        ...


class Evaluator:
    """Evaluates on the coordinator's own rank; keeps the last parameters whose loss was finite (see Evaluates)."""

    holds_back = False
    test_score = None

    def __init__(self, endpoint: Endpoint, client: Client, problem: Problem, ledger: Ledger, timeout: float):
        self._endpoint = endpoint
        self._timeout = timeout
        self._client = client
        self._problem = problem
        self._ledger = ledger
        self._model = problem.model()
        self._fetched = Arena(self._model.layout, self._model.dtype)
        self.good = Arena(self._model.layout, self._model.dtype)
        self._model.initialise(self.good, problem.seed)
        self.latest: Evaluation | None = None

    def first(self, timeout: float) -> Pieces:
        fetch = self._client.fetch()
        fetch.wait_all(timeout)  # before anybody moves the parameters
        return self._evaluate(0.0, fetch)

    def start(self, seconds: float) -> Pieces:
        return self._evaluate(seconds, self._client.fetch())

    def test(self) -> None:
        return None

    def take(self, report: np.void) -> None:
        raise RuntimeError(f"replica {report['replica']} has evaluated, though nobody asked")

    def _evaluate(self, seconds: float, fetch: Fetch) -> Pieces:
        accounts = self._ledger.accounts(seconds)
        yield from self._install(fetch)
        self._client.counts(fetch)  # the records are there
        shards = shards_tell(fetch.records, self._client.records())
        held_out = scoring(self._model, self._fetched, self._problem.held_out(), self._endpoint.charge)
        while True:
            try:
                next(held_out)
            except StopIteration as end:
                loss, accuracy = end.value
                break
            yield 0.0
        if not math.isfinite(loss):
            return Fault(None, accounts["step"], loss)
        np.copyto(self.good.flat, self._fetched.flat)
        self.latest = Evaluation(loss=loss, accuracy=accuracy, **accounts, **shards)
        return self.latest

    def _install(self, fetch: Fetch) -> Generator[float, None, None]:
        """Bring the parameters in as they come. DeadlineExpired if for so long nothing does."""
        end = self._endpoint.clock() + self._timeout
        while fetch.missing:
            if self._client.install(fetch, self._fetched.flat, wait=False):
                end = self._endpoint.clock() + self._timeout
                yield 0.0
            elif self._endpoint.clock() < end:
                yield PAUSE
            else:
                late = fetch.shard_of(next(iter(fetch.missing)))
                raise DeadlineExpired(
                    f"rank {self._endpoint.rank} waited {self._timeout:g} s for {late}, to evaluate its parameters"
                )


def shards_tell(before: np.ndarray, after: np.ndarray) -> dict:
    """What an Evaluation says of the shards, from their records (server.messages.RECORD) before and after reading."""
    counts = before["count"]
    return {
        "staleness": (before["staleness_sum"] / np.maximum(counts, 1)).tolist(),
        "staleness_max": before["staleness_max"].tolist(),
        "staleness_histogram": before["staleness_histogram"].tolist(),
        "staleness_edges": list(EDGES),
        "updates": counts.tolist(),
        "refused": after["refused"].tolist(),
        # One shard's count as it was before, another's as it was after: no update in between makes a drift.
        "drift": max(int(counts.max() - after["count"].min()), 0),
    }
