"""Random traffic in the simulator against the simplest model: all is delivered, each stream in order."""

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distbelief.comm.endpoint import ANY
from distbelief.comm.sim import Cluster

SIZE = 4
LONG = 1000.0


class Sending(NamedTuple):
    """One message of the plan, and the work before it (bytes of memory traffic: 10 to the microsecond here)."""

    source: int
    dest: int
    tag: int
    nbytes: int
    work: int


RANKS = st.integers(0, SIZE - 1)
PLANS = st.lists(
    st.builds(
        Sending, RANKS, RANKS, st.integers(0, 2), st.sampled_from([8, 100, 4096, 4104, 50_000]), st.integers(0, 100)
    ),
    max_size=40,
)


def send_all(endpoint, plan: list[Sending]) -> list:
    """Send this rank's part of the plan; each message begins with its number in the plan."""
    requests = []
    for number, sending in enumerate(plan):
        if sending.source == endpoint.rank:
            endpoint.charge(nbytes=sending.work)
            buffer = np.zeros(sending.nbytes, np.uint8)
            buffer[:8].view(np.int64)[0] = number
            requests.append(endpoint.send(buffer, sending.dest, sending.tag))
    return requests


def number_of(buffer: np.ndarray) -> int:
    return int(buffer[:8].view(np.int64)[0])


def streams(plan: list[Sending], dest: int) -> dict[tuple[int, int], list[int]]:
    """The model: for each (source, tag), the numbers of the messages to `dest` in the order sent."""
    expected = defaultdict(list)
    for number, sending in enumerate(plan):
        if sending.dest == dest:
            expected[sending.source, sending.tag].append(number)
    return dict(expected)


@settings(deadline=None, max_examples=60)
@given(plan=PLANS, seed=st.integers(0, 1000), jitter=st.sampled_from([0.0, 0.5, 2.0]))
def test_probed_messages(plan: list[Sending], seed: int, jitter: float) -> None:
    def program(endpoint):
        requests = send_all(endpoint, plan)
        got = defaultdict(list)
        for turn in range(sum(sending.dest == endpoint.rank for sending in plan)):
            envelope = endpoint.wait_message(LONG)
            if turn % 2:  # any message of that source will do, but the first of its tag must come
                envelope = endpoint.wait_message(LONG, envelope.source, ANY)
            buffer = np.zeros(envelope.nbytes, np.uint8)
            endpoint.wait_all([endpoint.receive(buffer, envelope.source, envelope.tag)], LONG, "it")
            assert plan[number_of(buffer)].nbytes == envelope.nbytes
            got[envelope.source, envelope.tag].append(number_of(buffer))
        endpoint.wait_all(requests, LONG, "the others")
        assert endpoint.probe() is None
        return dict(got)

    cluster = Cluster(SIZE, latency=1e-6, bandwidth=1e9, memory_bandwidth=1e7, jitter=jitter, seed=seed)
    assert cluster.run(program) == [streams(plan, rank) for rank in range(SIZE)]


@settings(deadline=None, max_examples=60)
@given(plan=PLANS, seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_posted_receives(plan: list[Sending], seed: int, order) -> None:
    # Receives are posted in any order of the streams, some before and some after the messages have come.
    keys = {}
    for rank in range(SIZE):
        keys[rank] = [(sending.source, sending.tag) for sending in plan if sending.dest == rank]
        order.shuffle(keys[rank])

    def program(endpoint):
        expected, taken = streams(plan, endpoint.rank), Counter()
        receives = []
        for source, tag in keys[endpoint.rank]:
            number = expected[source, tag][taken[source, tag]]
            taken[source, tag] += 1
            buffer = np.zeros(plan[number].nbytes, np.uint8)
            receives.append((number, buffer, endpoint.receive(buffer, source, tag)))
            endpoint.charge(nbytes=plan[number].work)
        requests = send_all(endpoint, plan)
        endpoint.wait_all([*requests, *(request for _, _, request in receives)], LONG, "everything")
        assert [number_of(buffer) for _, buffer, _ in receives] == [number for number, _, _ in receives]

    Cluster(SIZE, memory_bandwidth=1e7, jitter=1.0, seed=seed).run(program)
