"""What every endpoint must do, continued: windows and split. See `suite` for how the checks run."""

from collections.abc import Callable

import numpy as np

from comm.suite import LONG, RANKS, await_signal, give, signal, take
from distbelief.comm.endpoint import ANY, Endpoint, Envelope, Window


def meet(endpoint: Endpoint, tag: int) -> None:
    """Nobody returns before everybody has called: a barrier by messages."""
    if endpoint.rank == 0:
        for other in range(1, endpoint.size):
            await_signal(endpoint, other, tag)
        for other in range(1, endpoint.size):
            signal(endpoint, other, tag)
    else:
        signal(endpoint, 0, tag)
        await_signal(endpoint, 0, tag)


def read(endpoint: Endpoint, window: Window, into: np.ndarray, source: int, offset: int = 0) -> np.ndarray:
    """Get, wait, and return `into`."""
    endpoint.wait_all([window.get(into, source, offset)], LONG, f"bytes of rank {source}")
    return into


def check_window_is_zero_and_aligned(endpoint: Endpoint) -> None:
    window = endpoint.window(1000)
    assert window.local.dtype == np.uint8 and window.local.shape == (1000,)
    assert window.local.ctypes.data % 64 == 0
    for source in range(endpoint.size):
        assert not read(endpoint, window, np.ones(1000, np.uint8), source).any()
    window.free()


def check_window_offsets(endpoint: Endpoint) -> None:
    count = 1000 * (endpoint.rank + 1)  # every rank exposes another size
    window = endpoint.window(8 * count)
    window.local.view(np.float64)[:] = np.arange(count) + 1e6 * endpoint.rank
    window.sync()
    meet(endpoint, 1)
    for source in range(endpoint.size):  # its own memory as well
        last = 1000 * (source + 1) - 1
        for start, stop in ((0, 1), (0, last + 1), (17, 300), (last, last + 1), (5, 5)):
            values = read(endpoint, window, np.empty(stop - start), source, 8 * start)
            assert np.array_equal(values, np.arange(start, stop) + 1e6 * source), (source, start, stop)
    assert (read(endpoint, window, np.empty((2, 3)), 1, 16) == 1e6 + np.array([[2, 3, 4], [5, 6, 7]])).all()
    window.free()


def check_windows_larger_than_caches(endpoint: Endpoint) -> None:
    count = (1 << 24) + 1000
    window = endpoint.window(count if endpoint.rank == 1 else 0)
    bytes_ = np.random.default_rng(0).integers(0, 256, count, np.uint8)
    if endpoint.rank == 1:
        window.local[:] = bytes_
        window.sync()
    meet(endpoint, 1)
    whole = np.full(count + 2, 7, np.uint8)
    read(endpoint, window, whole[1 : count - 4], 1, 5)  # of both sides, none begins on a line
    assert np.array_equal(whole[1 : count - 4], bytes_[5:])
    assert whole[0] == 7 and (whole[count - 4 :] == 7).all()
    meet(endpoint, 2)
    window.free()


def check_memory_that_lies_here_is_what_get_reads(endpoint: Endpoint) -> None:
    window = endpoint.window(8 * (100 + endpoint.rank))
    window.local.view(np.float64)[:] = endpoint.rank
    window.sync()
    meet(endpoint, 1)
    for source in range(endpoint.size):
        memory = window.memory(source)
        if memory is not None:
            assert (memory[: 8 * (100 + source)].view(np.float64) == source).all()
    meet(endpoint, 2)
    window.local.view(np.float64)[0] = -1.0
    window.sync()
    meet(endpoint, 3)
    window.sync()
    for source in range(endpoint.size):
        memory = window.memory(source)
        if memory is not None:
            assert memory[:8].view(np.float64)[0] == -1.0
    meet(endpoint, 4)
    del memory
    window.free()


def check_window_of_nothing(endpoint: Endpoint) -> None:
    window = endpoint.window(64 if endpoint.rank == 2 else 0)
    assert window.local.shape == (64 if endpoint.rank == 2 else 0,)
    window.local[:] = 9
    window.sync()
    meet(endpoint, 1)
    assert (read(endpoint, window, np.zeros(64, np.uint8), 2) == 9).all()
    read(endpoint, window, np.empty(0), 0)
    window.free()
    endpoint.window(0).free()


def check_window_updates_are_seen(endpoint: Endpoint) -> None:
    window = endpoint.window(8 * 5000)
    values = window.local.view(np.float64)
    for version in range(1, 20):
        if endpoint.rank == 0:
            values[:] = version
            window.sync()
            for reader in range(1, endpoint.size):
                signal(endpoint, reader, 1)
            for reader in range(1, endpoint.size):
                await_signal(endpoint, reader, 2)
        else:
            await_signal(endpoint, 0, 1)
            assert (read(endpoint, window, np.empty(5000), 0) == version).all()
            signal(endpoint, 0, 2)
    window.free()


def check_window_reads_while_the_owner_updates(endpoint: Endpoint) -> None:
    # Reads may be torn between parameters, but each parameter only ever moves on.
    window = endpoint.window(8 * 20_000)
    if endpoint.rank == 0:
        values = window.local.view(np.int64)
        readers = endpoint.size - 1
        while readers:
            values += 1
            window.sync()
            endpoint.charge(nbytes=2 * values.nbytes)
            if (envelope := endpoint.probe(ANY, 1)) is not None:
                await_signal(endpoint, envelope.source, 1)
                readers -= 1
    else:
        before = np.zeros(20_000, np.int64)
        for _ in range(30):
            now = read(endpoint, window, np.empty(20_000, np.int64), 0)
            assert (now >= before).all()
            before = now
        signal(endpoint, 0, 1)
    window.free()


def check_many_reads_under_way(endpoint: Endpoint) -> None:
    count = 40_000
    window = endpoint.window(8 * count)
    window.local.view(np.float64)[:] = np.arange(count) + 1e6 * endpoint.rank
    window.sync()
    meet(endpoint, 1)
    pieces = 8
    into = np.zeros((endpoint.size, count))
    requests = [
        window.get(piece, source, 8 * count // pieces * index)
        for source in range(endpoint.size)
        for index, piece in enumerate(np.split(into[source], pieces))
    ]
    waiting = list(requests)
    while waiting:
        del waiting[endpoint.wait_any(waiting, LONG, "some piece")]
    assert all(request.done() for request in requests)
    assert np.array_equal(into, np.arange(count) + 1e6 * np.arange(endpoint.size)[:, None])
    window.free()


def check_two_windows_apart(endpoint: Endpoint) -> None:
    first, second = endpoint.window(8), endpoint.window(8)
    first.local[:], second.local[:] = 1, 2
    first.sync()
    second.sync()
    meet(endpoint, 1)
    other = (endpoint.rank + 1) % endpoint.size
    assert (read(endpoint, second, np.zeros(8, np.uint8), other) == 2).all()
    assert (read(endpoint, first, np.zeros(8, np.uint8), other) == 1).all()
    first.free()
    assert (read(endpoint, second, np.zeros(8, np.uint8), other) == 2).all()
    second.free()


def check_split_by_color(endpoint: Endpoint) -> None:
    half = endpoint.split(endpoint.rank % 2, endpoint.rank)
    assert (half.rank, half.size) == (endpoint.rank // 2, RANKS // 2)
    give_request = half.send(np.array([endpoint.rank]), 1 - half.rank, 1)
    assert take(half, np.empty(1, np.int64), 1 - half.rank, 1)[0] == (endpoint.rank + 2) % RANKS
    half.wait_all([give_request], LONG, "the other half")


def check_split_without_some(endpoint: Endpoint) -> None:
    child = endpoint.split(None if endpoint.rank == 1 else 5, 0)
    if endpoint.rank == 1:
        assert child is None
    else:
        assert (child.rank, child.size) == ({0: 0, 2: 1, 3: 2}[endpoint.rank], 3)  # equal keys: in the order of rank
        meet(child, 1)
    meet(endpoint, 1)
    assert endpoint.split(None, 0) is None  # nobody at all


def check_split_reversed(endpoint: Endpoint) -> None:
    mirror = endpoint.split(0, -endpoint.rank)
    assert (mirror.rank, mirror.size) == (endpoint.size - 1 - endpoint.rank, endpoint.size)
    if mirror.rank == 0:
        for source in range(1, mirror.size):
            envelope = mirror.wait_message(LONG, source)
            assert envelope == Envelope(source, 2, 8)
            assert take(mirror, np.empty(1, np.int64), source, 2)[0] == endpoint.size - 1 - source
    else:
        give(mirror, np.array([endpoint.rank]), 0, 2)


def check_split_keeps_messages_apart(endpoint: Endpoint) -> None:
    child = endpoint.split(0, endpoint.rank)
    grandchild = child.split(0, endpoint.rank)
    spaces = (grandchild, endpoint, child)
    if endpoint.rank == 0:
        requests = [space.send(np.array([float(index)]), 1, 1) for index, space in enumerate(spaces)]
        endpoint.wait_all(requests, LONG, "rank 1 to take all three")
    elif endpoint.rank == 1:
        assert child.wait_message(LONG) == Envelope(0, 1, 8)
        assert take(child, np.empty(1), 0, 1)[0] == 2
        assert child.probe() is None
        for index in (1, 0):
            assert take(spaces[index], np.empty(1), 0, 1)[0] == index
            assert spaces[index].probe() is None


def check_split_has_windows(endpoint: Endpoint) -> None:
    half = endpoint.split(endpoint.rank // 2, -endpoint.rank)
    window = half.window(8)
    window.local[:] = 10 + endpoint.rank
    window.sync()
    meet(half, 1)
    partner = endpoint.rank ^ 1
    assert (read(half, window, np.zeros(8, np.uint8), 1 - half.rank) == 10 + partner).all()
    window.free()


CHECKS: dict[str, Callable[[Endpoint], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
