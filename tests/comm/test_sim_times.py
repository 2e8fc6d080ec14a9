"""Virtual times of the simulator, worked out by hand from the formulas of `comm.sim.links`.

All clusters here have a latency of 1 us and links of 1 GB/s: a kilobyte takes 1 us, a megabyte 1 ms.
"""

import numpy as np
import pytest

from distbelief.comm.endpoint import DeadlineExpired, Endpoint
from distbelief.comm.sim import LOOK, Cluster

US, MS = 1e-6, 1e-3
KILOBYTE, MEGABYTE = 1000, 1_000_000


def cluster(size: int, **changes) -> Cluster:
    return Cluster(size, **{"latency": 1 * US, "bandwidth": 1e9, "memory_bandwidth": 2e9, **changes})


def near(*seconds: float) -> list:
    return [pytest.approx(value, rel=1e-12, abs=1e-15) for value in seconds]


def sent(endpoint: Endpoint, nbytes: int, dest: int) -> float:
    """When a send posted now is done."""
    endpoint.wait_all([endpoint.send(np.zeros(nbytes, np.uint8), dest, 1)], 10.0, f"rank {dest}")
    return endpoint.clock()


def received(endpoint: Endpoint, nbytes: int, source: int) -> float:
    """When a receive posted now is done."""
    endpoint.wait_all([endpoint.receive(np.zeros(nbytes, np.uint8), source, 1)], 10.0, f"rank {source}")
    return endpoint.clock()


def test_small_message() -> None:
    def program(endpoint):
        return sent(endpoint, KILOBYTE, 1) if endpoint.rank == 0 else received(endpoint, KILOBYTE, 0)

    # It has left after n/bandwidth, and is there one latency and n/bandwidth after the start.
    assert cluster(2).run(program) == near(1 * US, 2 * US)


def test_messages_queue_on_the_outgoing_link() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            requests = [endpoint.send(np.zeros(KILOBYTE, np.uint8), dest, 1) for dest in (1, 2)]
            times = []
            for request in requests:
                endpoint.wait_all([request], 1.0, "the link")
                times.append(endpoint.clock())
            return times
        return received(endpoint, KILOBYTE, 0)

    assert cluster(3).run(program) == [near(1 * US, 2 * US), *near(2 * US, 3 * US)]


def test_messages_queue_on_the_incoming_link() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            return [received(endpoint, KILOBYTE, source) for source in (1, 2, 3)]
        return sent(endpoint, KILOBYTE, 0)

    assert cluster(4).run(program) == [near(2 * US, 3 * US, 4 * US), *near(1 * US, 1 * US, 1 * US)]


def test_large_message() -> None:
    def program(endpoint):
        return sent(endpoint, MEGABYTE, 1) if endpoint.rank == 0 else received(endpoint, MEGABYTE, 0)

    # Request to send, clear to send, payload: three latencies. Both sides are done at once.
    assert cluster(2).run(program) == near(1 * MS + 3 * US, 1 * MS + 3 * US)


def test_large_message_waits_for_its_receive() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            return sent(endpoint, MEGABYTE, 1)
        assert endpoint.wait_message(1.0).nbytes == MEGABYTE
        seen = endpoint.clock()
        endpoint.charge(nbytes=2e9)  # one second
        return seen, received(endpoint, MEGABYTE, 0)

    end = 1 + 1 * US + 1 * MS + 2 * US
    assert cluster(2).run(program) == [*near(end), tuple(near(1 * US, end))]


def test_small_message_may_be_received_late() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            return sent(endpoint, KILOBYTE, 1)
        endpoint.charge(nbytes=2e9)
        return received(endpoint, KILOBYTE, 0)

    assert cluster(2).run(program) == near(1 * US, 1 + LOOK)


def test_message_to_itself_is_a_copy_in_memory() -> None:
    def program(endpoint):
        return sent(endpoint, KILOBYTE, 0), received(endpoint, KILOBYTE, 0)

    assert cluster(1).run(program) == [tuple(near(0.5 * US, 0.5 * US + LOOK))]


def test_get() -> None:
    def program(endpoint):
        window = endpoint.window(MEGABYTE)
        started = endpoint.clock()
        if endpoint.rank == 0:
            return None
        into = np.zeros(MEGABYTE, np.uint8)
        endpoint.wait_all([window.get(into, 0)], 1.0, "rank 0")
        return endpoint.clock() - started

    # Two readers at once share the owner's outgoing link; the owner's program has returned long since.
    assert cluster(3).run(program) == [None, *near(1 * MS + 2 * US, 2 * MS + 2 * US)]


def test_get_reads_at_one_moment() -> None:
    def program(endpoint):
        window = endpoint.window(MEGABYTE)
        if endpoint.rank == 0:
            for value in range(1, 100):  # a new value every 100 ns; the request is there after 1 us
                window.local[:] = value
                endpoint.charge(nbytes=200)
            return None
        into = np.zeros(MEGABYTE, np.uint8)
        endpoint.wait_all([window.get(into, 0)], 1.0, "rank 0")
        return into.min(), into.max()

    low, high = cluster(2).run(program)[1]
    assert low == high and 10 <= low <= 11


def test_charge_and_straggler() -> None:
    def program(endpoint):
        endpoint.charge(flops=1e9)
        after_flops = endpoint.clock()
        endpoint.charge(nbytes=2e9)
        return after_flops, endpoint.clock() - after_flops

    times = cluster(2, flops=4e9, speeds={1: 0.25}).run(program)
    assert times == [tuple(near(0.25, 1.0)), tuple(near(1.0, 1.0))]


def test_collectives_wait_for_the_last() -> None:
    def program(endpoint):
        endpoint.charge(nbytes=2e9 * endpoint.rank)
        endpoint.split(0, 0)
        return endpoint.clock()

    assert cluster(4).run(program) == near(*[3 + 4 * US] * 4)
    assert cluster(5).run(program) == near(*[4 + 6 * US] * 5)


def test_looks_and_timeouts() -> None:
    def program(endpoint):
        times = []
        endpoint.probe()
        times.append(endpoint.clock())
        endpoint.wait_message(2.0)
        times.append(endpoint.clock())
        request = endpoint.receive(np.zeros(1), 0, 1)
        request.done()
        times.append(endpoint.clock())
        with pytest.raises(DeadlineExpired):
            endpoint.wait_any([request], 3.0, "nothing")
        times.append(endpoint.clock())
        return times

    assert cluster(1).run(program) == [near(LOOK, 2 + LOOK, 2 + 2 * LOOK, 5 + 2 * LOOK)]


def test_jitter_has_mean_one() -> None:
    def program(endpoint):
        for _ in range(20_000):
            endpoint.charge(nbytes=2e9)
        return endpoint.clock()

    assert cluster(1, jitter=0.5, seed=1).run(program)[0] == pytest.approx(20_000, rel=0.02)
