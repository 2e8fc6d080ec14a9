"""What a replica waits for, in virtual time: fetches and pushes are under way while it computes."""

import pytest
from algorithms.digits import Digits, train_in_simulator

from distbelief.algorithms.settings import Downpour
from distbelief.optim import FixedRate


def _run(overlap: bool):
    """Sending the parameters once takes about a third of a step."""
    settings = {"settings": Downpour(overlap=overlap), "latency": 1e-6, "bandwidth": 1e7, "flops": 1e8}
    _, heard, cluster = train_in_simulator(Digits(batch=50), FixedRate(rate=0.01), ranks=2, **settings)
    return cluster.now, heard.evaluations[-1]


def test_neither_a_fetch_nor_a_push_holds_up_a_replica():
    """0.230 s. With every fetch waited for it would be 0.259, with one buffer to accrue in and push from 0.260."""
    seconds, _ = _run(overlap=True)
    assert seconds < 0.24


def test_without_overlap_a_replica_waits_for_every_fetch():
    overlapped, fetching = _run(overlap=True)
    seconds, waiting = _run(overlap=False)
    assert seconds > overlapped + 0.02
    # What it waits longer for fetches is what the run takes longer.
    assert waiting.seconds_fetching - fetching.seconds_fetching == pytest.approx(seconds - overlapped, rel=0.2)
