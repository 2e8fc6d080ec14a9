"""The coordinator's evaluations: the shards' parameters, tried on the held-out examples a batch at a time."""

import math
from collections.abc import Generator

import numpy as np

from distbelief.algorithms.ledger import Ledger
from distbelief.algorithms.model import Problem
from distbelief.algorithms.progress import Evaluation, Fault
from distbelief.algorithms.scoring import scoring
from distbelief.comm.endpoint import Endpoint
from distbelief.nn.arena import Arena
from distbelief.server import Client, Fetch


class Evaluator:
    """Keeps the last parameters whose loss was finite, and their evaluation. Local."""

    def __init__(self, endpoint: Endpoint, client: Client, problem: Problem, ledger: Ledger):
        self._endpoint = endpoint
        self._client = client
        self._problem = problem
        self._ledger = ledger
        self._model = problem.model()
        self._fetched = Arena(self._model.layout, self._model.dtype)
        self.good = Arena(self._model.layout, self._model.dtype)
        self._model.initialise(self.good, problem.seed)
        self.latest: Evaluation | None = None

    def evaluate(self, seconds: float, fetch: Fetch) -> Generator[None, None, Evaluation | Fault]:
        """Score what `fetch` brings, in small pieces: yields between them. `seconds`: since training began."""
        ledger = self._ledger
        evaluation = {
            "time": seconds,
            "step": ledger.total("step"),
            "examples": ledger.total("examples"),
            "train_loss": ledger.train_loss(),
            "examples_per_s": ledger.total("examples") / max(seconds, 1e-9),
            "bytes_fetched": ledger.total("bytes_fetched"),
            "bytes_pushed": ledger.total("bytes_pushed"),
            "seconds_fetching": ledger.total("seconds_fetching"),
            "seconds_pushing": ledger.total("seconds_pushing"),
            "replica_examples_per_s": ledger.examples_per_s(),
        }
        while fetch.missing:
            self._client.install(fetch, self._fetched.flat, wait=False)
            yield
        counts = self._client.counts(fetch)
        shards = {
            "staleness": (fetch.records["staleness_sum"] / np.maximum(counts, 1)).tolist(),
            "staleness_max": fetch.records["staleness_max"].tolist(),
            "staleness_histogram": fetch.records["staleness_histogram"].tolist(),
            "updates": counts.tolist(),
            # One shard's count as it was before, another's as it was after: no update in between makes a drift.
            "drift": max(int(counts.max() - self._client.records()["count"].min()), 0),
        }
        held_out = self._problem.held_out()
        loss, accuracy = yield from scoring(self._model, self._fetched, held_out, self._endpoint.charge)
        if not math.isfinite(loss):
            return Fault(None, evaluation["step"], loss)
        np.copyto(self.good.flat, self._fetched.flat)
        self.latest = Evaluation(loss=loss, accuracy=accuracy, **evaluation, **shards)
        return self.latest
