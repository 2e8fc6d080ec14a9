"""What every endpoint must do, as programs for four ranks; run on the simulator and, by mpi/endpoint_checks.py, on MPI.

Each `check_...` is called on all ranks with an endpoint of its own, and raises AssertionError where the endpoint
breaks its promise. Real and virtual clocks differ: checks compare times only where any clock must agree.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from distbelief.comm.endpoint import ANY, DeadlineExpired, Endpoint, Envelope

RANKS = 4
LONG = 20.0  # seconds; no wait comes near it unless something is broken
SHORT = 0.05
HEADER = np.dtype([("kind", "i4"), ("start", "i8"), ("stop", "i8")])


@contextmanager
def expect(error: type[Exception], *texts: str) -> Iterator[None]:
    """The block must raise `error` with all `texts` in its message. (The MPI side knows no pytest.)"""
    try:
        yield
    except error as raised:
        for text in texts:
            assert text in str(raised), f"{text!r} is missing from {raised!r}"
    else:
        raise AssertionError(f"{error.__name__} was not raised")


def give(endpoint: Endpoint, buffer: np.ndarray, dest: int, tag: int) -> None:
    """Send and wait."""
    endpoint.wait_all([endpoint.send(buffer, dest, tag)], LONG, f"rank {dest} to take tag {tag}")


def take(endpoint: Endpoint, buffer: np.ndarray, source: int, tag: int) -> np.ndarray:
    """Receive, wait, and return `buffer`."""
    endpoint.wait_all([endpoint.receive(buffer, source, tag)], LONG, f"tag {tag} from rank {source}")
    return buffer


def signal(endpoint: Endpoint, dest: int, tag: int) -> None:
    """Send an empty message."""
    give(endpoint, np.empty(0, np.uint8), dest, tag)


def await_signal(endpoint: Endpoint, source: int, tag: int) -> None:
    """Take the empty message of `signal`."""
    take(endpoint, np.empty(0, np.uint8), source, tag)


def check_types_and_sizes(endpoint: Endpoint) -> None:
    right, left = (endpoint.rank + 1) % endpoint.size, (endpoint.rank - 1) % endpoint.size
    for dtype in (np.float32, np.float64, np.int64, np.uint8, HEADER):
        for shape in ((0,), (1,), (), (1000,), (3, 5), (2, 0, 3), (5000, 7)):
            seed = right * 1000 + endpoint.rank
            outgoing = pattern(shape, dtype, seed)
            incoming = np.zeros(shape, dtype)
            requests = [endpoint.send(outgoing, right, 5), endpoint.receive(incoming, left, 5)]
            endpoint.wait_all(requests, LONG, "the ring")
            expected = pattern(shape, dtype, endpoint.rank * 1000 + left)
            assert incoming.tobytes() == expected.tobytes(), (dtype, shape)


def pattern(shape: tuple[int, ...], dtype: np.dtype | type, seed: int) -> np.ndarray:
    """Bytes that differ by place and seed, as an array of the given kind."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    values = (np.arange(count * dtype.itemsize, dtype=np.int64) * 7 + seed) % 251
    return values.astype(np.uint8).view(dtype).reshape(shape)


def check_ten_megabytes(endpoint: Endpoint) -> None:
    right, left = (endpoint.rank + 1) % endpoint.size, (endpoint.rank - 1) % endpoint.size
    outgoing = np.arange(1_250_000, dtype=np.float64) + endpoint.rank
    incoming = np.empty_like(outgoing)
    requests = [endpoint.receive(incoming, left, 1), endpoint.send(outgoing, right, 1)]
    endpoint.wait_all(requests, LONG, "ten megabytes round the ring")
    assert np.array_equal(incoming, np.arange(1_250_000, dtype=np.float64) + left)


def check_order_within_a_tag(endpoint: Endpoint) -> None:
    # Small and large messages take different ways; neither may overtake the other.
    sizes = [1 + (index * 37) % 5 * 2000 for index in range(40)]
    if endpoint.rank == 0:
        for index, size in enumerate(sizes):
            for source in range(1, endpoint.size):
                envelope = endpoint.wait_message(LONG, source, 3)
                assert envelope == Envelope(source, 3, 8 * size), (envelope, index)
                assert (take(endpoint, np.empty(size), source, 3) == index).all()
    else:
        buffers = [np.full(size, float(index)) for index, size in enumerate(sizes)]
        endpoint.wait_all([endpoint.send(buffer, 0, 3) for buffer in buffers], LONG, "rank 0 to take all")


def check_tags_apart(endpoint: Endpoint) -> None:
    if endpoint.rank == 0:
        for tag in (9, 8, 7):  # against the order of sending
            for source in reversed(range(1, endpoint.size)):
                assert take(endpoint, np.empty(1), source, tag)[0] == 100 * source + tag
    else:
        buffers = [np.array([100.0 * endpoint.rank + tag]) for tag in (7, 8, 9)]
        requests = [endpoint.send(buffer, 0, tag) for tag, buffer in zip((7, 8, 9), buffers, strict=True)]
        endpoint.wait_all(requests, LONG, "rank 0 to take three tags")


def check_receive_posted_first(endpoint: Endpoint) -> None:
    if endpoint.rank == 0:
        small, large = np.zeros(2), np.zeros(100_000)
        requests = [endpoint.receive(small, 1, 1), endpoint.receive(large, 1, 2)]
        assert not any(request.done() for request in requests)
        signal(endpoint, 1, 3)
        endpoint.wait_all(requests, LONG, "rank 1")
        assert (small == 1).all() and (large == 2).all()
        assert all(request.done() for request in requests)
    elif endpoint.rank == 1:
        await_signal(endpoint, 0, 3)
        give(endpoint, np.full(2, 1.0), 0, 1)
        give(endpoint, np.full(100_000, 2.0), 0, 2)


def check_probe(endpoint: Endpoint) -> None:
    if endpoint.rank == 0:
        assert endpoint.probe() is None
        signal(endpoint, 2, 1)
        assert endpoint.wait_message(LONG, ANY, 4) == Envelope(2, 4, 24)
        assert endpoint.probe() == endpoint.probe(2) == endpoint.probe(2, 4) == Envelope(2, 4, 24)
        assert endpoint.probe(1) is endpoint.probe(ANY, 5) is endpoint.probe(2, 5) is endpoint.probe(3, 4) is None
        signal(endpoint, 3, 1)
        assert endpoint.wait_message(LONG, 3) == Envelope(3, 6, 80_000)
        assert endpoint.probe(ANY, 6) == Envelope(3, 6, 80_000)
        assert endpoint.probe(2, ANY) == Envelope(2, 4, 24)  # still there: a probe takes nothing
        assert (take(endpoint, np.empty(10_000), 3, 6) == 3).all()
        assert endpoint.probe() == Envelope(2, 4, 24)
        assert (take(endpoint, np.empty(3), 2, 4) == 2).all()
        assert endpoint.probe() is None
    elif endpoint.rank == 2:
        await_signal(endpoint, 0, 1)
        give(endpoint, np.full(3, 2.0), 0, 4)
    elif endpoint.rank == 3:
        await_signal(endpoint, 0, 1)
        give(endpoint, np.full(10_000, 3.0), 0, 6)


def check_probe_in_a_loop(endpoint: Endpoint) -> None:
    if endpoint.rank == 0:
        while (envelope := endpoint.probe()) is None:
            pass
        request = endpoint.receive(np.empty(1), envelope.source, envelope.tag)
        while not request.done():
            pass
    elif endpoint.rank == 1:
        request = endpoint.send(np.ones(1), 0, 2)
        while not request.done():
            pass


def check_wait_any(endpoint: Endpoint) -> None:
    if endpoint.rank == 0:
        buffers = np.zeros((endpoint.size, 1))
        requests = {source: endpoint.receive(buffers[source], source, 1) for source in (1, 2, 3)}
        for source in (3, 1, 2):  # each sends when told to, so only its request can be the one
            signal(endpoint, source, 2)
            pending = list(requests)
            index = endpoint.wait_any(list(requests.values()), LONG, "anybody")
            assert pending[index] == source, (pending, index, source)
            assert buffers[source, 0] == source
            del requests[source]
    else:
        await_signal(endpoint, 0, 2)
        give(endpoint, np.array([float(endpoint.rank)]), 0, 1)


def check_wait_all(endpoint: Endpoint) -> None:
    incoming = np.zeros((endpoint.size, 3000))
    outgoing = np.full(3000, float(endpoint.rank))
    requests = [endpoint.receive(incoming[source], source, 1) for source in range(endpoint.size)]
    requests += [endpoint.send(outgoing, dest, 1) for dest in range(endpoint.size)]  # to itself as well
    endpoint.wait_all(requests, LONG, "all to all")
    endpoint.wait_all(requests, 0.0, "what is done already")
    endpoint.wait_all([], 0.0, "nothing")
    assert endpoint.wait_any(requests, 0.0, "what is done already") in range(len(requests))
    assert (incoming == np.arange(endpoint.size)[:, None]).all()


def check_deadline(endpoint: Endpoint) -> None:
    if endpoint.rank == 1:
        started = endpoint.clock()
        requests = [endpoint.receive(np.empty(1), 2, 1), endpoint.receive(np.empty(1), 2, 2)]
        with expect(DeadlineExpired, "rank 1 waited 0.05 s for rank 2 to answer"):
            endpoint.wait_all(requests, SHORT, "rank 2 to answer")
        assert endpoint.clock() - started >= SHORT
        with expect(DeadlineExpired, "rank 1 waited 0.05 s for either"):
            endpoint.wait_any(requests, SHORT, "either")
        with expect(DeadlineExpired, "rank 1 waited 0 s for the impatient"):
            endpoint.wait_all(requests, 0.0, "the impatient")
        signal(endpoint, 2, 3)
        endpoint.wait_all(requests, LONG, "rank 2, after all")  # an expired wait leaves its requests as they were
    elif endpoint.rank == 2:
        await_signal(endpoint, 1, 3)
        give(endpoint, np.ones(1), 1, 2)
        give(endpoint, np.ones(1), 1, 1)


def check_wait_message_times_out(endpoint: Endpoint) -> None:
    if endpoint.rank == 0:
        started = endpoint.clock()
        assert endpoint.wait_message(SHORT) is None
        assert endpoint.clock() - started >= SHORT
        signal(endpoint, 1, 1)
        assert endpoint.wait_message(LONG) == Envelope(1, 2, 8)
        assert endpoint.wait_message(SHORT, 1, 3) is None  # what there is does not fit
        assert endpoint.wait_message(0.0, 1, 2) == Envelope(1, 2, 8)
        take(endpoint, np.empty(1), 1, 2)
    elif endpoint.rank == 1:
        await_signal(endpoint, 0, 1)
        give(endpoint, np.ones(1), 0, 2)


def check_messages_to_itself(endpoint: Endpoint) -> None:
    for size in (0, 3, 100_000):
        incoming = np.zeros(size)
        request = endpoint.send(np.full(size, 7.0), endpoint.rank, 1)
        assert endpoint.wait_message(LONG, endpoint.rank, 1) == Envelope(endpoint.rank, 1, 8 * size)
        endpoint.wait_all([endpoint.receive(incoming, endpoint.rank, 1), request], LONG, "myself")
        assert (incoming == 7).all()


def check_wrong_size(endpoint: Endpoint) -> None:
    # No long message into a short buffer: Open MPI 5.0 with single-copy transfers (CMA) reports the truncation, but
    # writes the whole message first. Rest of that promise: test_sim_mistakes.
    lengths = [(5, 4), (4, 5), (100_000, 100_001), (0, 1), (1, 0)]
    for index, (sent, expected) in enumerate(lengths):
        if endpoint.rank == 0:
            with expect(ValueError, str(8 * expected)):
                take(endpoint, np.empty(expected), 1, index)
            with expect(ValueError, str(8 * expected)):  # the same once the message is there
                endpoint.wait_message(LONG, 2, index)
                take(endpoint, np.empty(expected), 2, index)
        elif endpoint.rank <= 2:
            give(endpoint, np.zeros(sent), 0, index)


def check_layout_of_buffers(endpoint: Endpoint) -> None:
    scattered = np.zeros((4, 4))[:, 1]
    with expect(ValueError, "contiguous"):
        endpoint.send(scattered, 0, 1)
    with expect(ValueError, "contiguous"):
        endpoint.receive(scattered, 0, 1)


def check_clock_and_charge(endpoint: Endpoint) -> None:
    times = [endpoint.clock()]
    for _ in range(50):
        endpoint.charge(flops=1e6, nbytes=1e3)
        times.append(endpoint.clock())
    assert times == sorted(times)


CHECKS: dict[str, Callable[[Endpoint], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
