"""Shards that drift apart: one line of warning in a run, and how far in each record."""

import numpy as np
import pytest
from algorithms.digits import Digits, Heard

from distbelief.algorithms import downpour
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.sim import Cluster
from distbelief.launch.roles import assign
from distbelief.optim import Adagrad
from distbelief.server import Placement
from distbelief.server.messages import GRADIENT, HEADER, PUSH, payload_tag, record

SHARDS, RANKS = 2, 5


class OneSided(Digits):
    """Digits whose replica 0 pushes gradients of nothing to shard 1 alone, so many besides each of its own."""

    def __init__(self, endpoint, extra: int):
        super().__init__()
        self._endpoint, self._extra = endpoint, extra

    def batches(self, replica: int, replicas: int):
        batches = super().batches(replica, replicas)
        if replica == 0:
            epoch = batches.epoch
            batches.epoch = lambda number: (self._push_more(batch) for batch in epoch(number))
        return batches

    def _push_more(self, batch):
        start, stop = Placement(self.model().layout.size, SHARDS).intervals[1]
        nothing = np.zeros(stop - start, np.float32)
        for _ in range(self._extra):
            header = record(
                HEADER, kind=GRADIENT, sequence=10**9, last=True, start=start, stop=stop, nbytes=nothing.nbytes
            )
            requests = [self._endpoint.send(header, 1, PUSH), self._endpoint.send(nothing, 1, payload_tag(0))]
            self._endpoint.wait_all(requests, 20.0, "shard 1")
        return batch


def heard_of(extra: int, **cluster) -> Heard:
    heard = Heard()

    def program(endpoint):
        downpour.train(
            endpoint,
            assign(RANKS, SHARDS),
            OneSided(endpoint, extra),
            Adagrad(rate=0.02),
            Downpour(),
            Stop(epochs=1),
            Evaluate(every_examples=200),
            heard,
            20.0,
        )

    Cluster(RANKS, flops=1e8, **cluster).run(program)
    return heard


def test_one_line_tells_of_it():
    heard = heard_of(extra=1)
    drifts = [evaluation.drift for evaluation in heard.evaluations]
    assert drifts == sorted(drifts) and drifts[0] == 0 and drifts[-1] > 20
    for evaluation in heard.evaluations:
        assert evaluation.drift <= evaluation.updates[1] - evaluation.updates[0] + 3
    (warning,) = heard.warnings
    assert "shards drift apart" in warning and "expected 3 at most" in warning


@pytest.mark.parametrize("seed", range(3))
def test_shards_that_only_take_turns_do_not(seed):
    """Updates take long, and messages come in any order."""
    heard = heard_of(extra=0, jitter=1.0, latency=1e-4, memory_bandwidth=1e7, seed=seed)
    assert heard.warnings == [] and max(evaluation.drift for evaluation in heard.evaluations) <= 3
