"""The warmstart and its ramp: who starts when, also with bounded clocks, an early stop, a replica 0 that is done."""

import io
import math

import pytest
from algorithms.digits import Digits, train_in_simulator

from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.algorithms.warmstart import clocks, starts
from distbelief.optim import FixedRate
from distbelief.server import Bounded, Server
from distbelief.server.messages import PAYLOADS


@pytest.mark.parametrize(
    ("warmstart", "ramp", "replicas", "expected"),
    [
        (0, 0, 3, [0, 0, 0]),
        (20, 0, 4, [0, 20, 20, 20]),
        (20, 30, 4, [0, 30, 40, 50]),
        (0, 1, 3, [0, 0, 1]),
        (5, 7, 1, [0]),
        (5, 7, 2, [0, 12]),
    ],
)
def test_replicas_start_evenly_over_the_ramp(warmstart, ramp, replicas, expected):
    settings = Downpour(warmstart=warmstart, ramp=ramp)
    assert starts(settings, replicas) == expected
    assert clocks(settings, replicas) == [max(step - warmstart, 0) for step in expected]


def pushes_of_replica_0_before(log: str, replicas: int) -> list[float]:
    """For each other replica: how often replica 0 pushed before its first push; infinite if it never did."""
    # Columns of the log: time, rank, kind, peer, tag, ...
    lines = [line.split() for line in log.splitlines()]
    sources = [int(words[1]) for words in lines if words[2] == "send" and int(words[4]) in PAYLOADS]
    return [sources[: sources.index(rank)].count(1) if rank in sources else math.inf for rank in range(2, replicas + 1)]


def run(settings: Downpour, stop=Stop(epochs=2), replicas=4, **options):
    log = io.StringIO()
    problem = Digits()
    outcomes, heard, cluster = train_in_simulator(
        problem,
        FixedRate(rate=0.05),
        ranks=replicas + 1,
        settings=settings,
        stop=stop,
        evaluate=Evaluate(),
        timeout=50.0,
        time_limit=100.0,
        flops=1e8,
        log=log,
        **options,
    )
    assert not outcomes[0].failed
    return heard.evaluations[-1], pushes_of_replica_0_before(log.getvalue(), replicas), cluster


def test_replica_0_trains_alone_then_the_others_join_one_after_the_other():
    last, before, _ = run(Downpour(warmstart=10, ramp=12))
    for start, pushes in zip([14, 18, 22], before, strict=True):
        assert start <= pushes <= start + 2  # a push of its own comes a step after its start
    assert last.examples == 2 * Digits().training_examples


@pytest.mark.parametrize("n_push", [1, 3])
@pytest.mark.parametrize("slow", [1, 2, 4])
def test_with_a_bounded_lead_nobody_waits_for_those_that_have_not_started(n_push, slow):
    last, before, _ = run(
        Downpour(warmstart=6, ramp=12, n_push=n_push),
        server=Server(staleness=Bounded(steps=1)),
        speeds={slow: 0.3},
    )
    assert last.examples == 2 * Digits().training_examples
    assert before == sorted(before) and before[0] * n_push >= 6


@pytest.mark.parametrize("settings", [Downpour(warmstart=5, ramp=1_000_000), Downpour(warmstart=1_000_000, ramp=30)])
def test_the_others_start_when_replica_0_is_through(settings):
    """At once, and with clocks that none of them has to wait for."""
    ends = []
    for staleness in ({}, {"server": Server(staleness=Bounded(steps=2))}):
        last, before, cluster = run(settings, **staleness)
        assert last.examples == 2 * Digits().training_examples
        assert min(before) > 10
        ends.append(cluster.now)
    assert ends[1] < 1.1 * ends[0]


def test_a_stop_ends_the_ramp():
    last, before, cluster = run(Downpour(warmstart=5, ramp=1_000_000), stop=Stop(seconds=0.5))
    assert 0.5 <= cluster.now < 0.7 and before == [math.inf] * 3
    assert last.replica_examples_per_s[0] > 0
