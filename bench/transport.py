"""The ways that bytes take from rank to rank, beside MPI's own calls and a copy in memory.

    mpirun -n 2 python bench/transport.py [--largest BYTES] [--repetitions N]

memcpy                np.copyto on rank 0: what the memory gives
raw get, get          one-sided, from rank 1's window: MPI's Rget and Wait; Window.get of the endpoint, which copies
                      by itself within a node. Rank 1 waits for messages meanwhile, as an idle shard does
raw ping, ping        there and back, the time is half of that: MPI's Isend and Irecv; the endpoint's send and receive
raw send, send        one way, until 8 bytes that say so have come back: the same two

They take turns, so that all of them see the same moods of the machine. Percentiles are over all calls of all turns:
of the large sizes there are few, and the p99 is the slowest. GB/s count the bytes of one way once, at the median.
The last line is JSON: `memcpy_gbps`, `raw_get_gbps`, `fetch_gbps` (of get) and `fetch_ratio` (to memcpy) are those of
the largest size, and `results` has every line of the table.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import job
import latency
import machine  # noqa: F401  (before NumPy: one BLAS thread)
import numpy as np

from distbelief.comm.endpoint import Endpoint

PIECE = 1 << 30  # what one call of MPI may move, and the endpoint moves with one
TURN_BYTES, TURN_CALLS = 1 << 24, 100  # a turn is as many calls as move so much, or so many
ORDER, READY, DATA = 1, 2, 3  # tags
TIMEOUT = 60.0
LEAVE = -1


class Way(NamedTuple):
    """One way to move the first `n` bytes."""

    name: str
    call: Callable[[int], None]
    """Rank 0: move them, and wait until they are there."""
    answer: Callable[[int], None] | None = None
    """Rank 1's part in one call; None if it has none, and waits for messages."""
    crossings: int = 1


def ways(endpoint: Endpoint, largest: int) -> tuple[list[Way], Callable[[], None]]:
    """The ways to measure, and what releases their windows. Both are collective over both ranks."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    peer = 1 - endpoint.rank
    exposed = largest if endpoint.rank == 1 else 0
    out, into = np.ones(largest, np.uint8), np.ones(largest, np.uint8)
    little = np.ones(8, np.uint8)
    window = endpoint.window(exposed)
    raw_window = MPI.Win.Allocate(exposed, 1, MPI.INFO_NULL, comm)
    raw_window.Lock_all(MPI.MODE_NOCHECK)
    if exposed:
        window.local[:] = 1
        np.frombuffer(raw_window.tomemory(), np.uint8)[:] = 1
    window.sync()
    raw_window.Sync()
    comm.Barrier()

    def raw_get(n: int) -> None:
        raw_window.Rget([into[:n], n, MPI.BYTE], peer, (0, n, MPI.BYTE)).Wait()

    def get(n: int) -> None:
        endpoint.wait_all([window.get(into[:n], peer)], TIMEOUT, "a get")

    def raw_exchange(sent: np.ndarray, received: np.ndarray) -> None:
        sending = comm.Isend([sent, MPI.BYTE], peer, DATA)
        comm.Irecv([received, MPI.BYTE], peer, DATA).Wait()
        sending.Wait()

    def raw_return(received: np.ndarray, sent: np.ndarray) -> None:
        comm.Irecv([received, MPI.BYTE], peer, DATA).Wait()
        comm.Isend([sent, MPI.BYTE], peer, DATA).Wait()

    def exchange(sent: np.ndarray, received: np.ndarray) -> None:
        requests = [endpoint.send(sent, peer, DATA), endpoint.receive(received, peer, DATA)]
        endpoint.wait_all(requests, TIMEOUT, "an answer")

    def return_(received: np.ndarray, sent: np.ndarray) -> None:
        endpoint.wait_all([endpoint.receive(received, peer, DATA)], TIMEOUT, "a message")
        endpoint.wait_all([endpoint.send(sent, peer, DATA)], TIMEOUT, "an answer to be taken")

    def release() -> None:
        window.free()
        raw_window.Unlock_all()
        raw_window.Free()
        comm.Free()

    kinds = [
        Way("memcpy", lambda n: np.copyto(into[:n], out[:n])),
        Way("raw get", raw_get),
        Way("get", get),
        Way("raw ping", lambda n: raw_exchange(out[:n], into[:n]), lambda n: raw_return(into[:n], out[:n]), 2),
        Way("ping", lambda n: exchange(out[:n], into[:n]), lambda n: return_(into[:n], out[:n]), 2),
        Way("raw send", lambda n: raw_exchange(out[:n], little), lambda n: raw_return(into[:n], little)),
        Way("send", lambda n: exchange(out[:n], little), lambda n: return_(into[:n], little)),
    ]
    return kinds, release


def turn(endpoint: Endpoint, ways: list[Way], which: int, nbytes: int, calls: int) -> list[float]:
    """Rank 0: the seconds that each of `calls` calls took."""
    way = ways[which]
    if way.answer:
        order(endpoint, which, nbytes, calls)
        ready = endpoint.receive(np.empty(1, np.int64), 1, READY)
        endpoint.wait_all([ready], TIMEOUT, "rank 1 to be ready")
    return [latency.seconds_of(lambda: way.call(nbytes)) / way.crossings for _ in range(calls)]


def order(endpoint: Endpoint, *words: int) -> None:
    endpoint.wait_all([endpoint.send(np.array(words, np.int64), 1, ORDER)], TIMEOUT, "rank 1 to take an order")


def answer(endpoint: Endpoint, ways: list[Way]) -> None:
    """Rank 1: wait for orders, as a shard waits for pushes."""
    words = np.empty(3, np.int64)
    while True:
        if endpoint.wait_message(TIMEOUT, 0, ORDER) is None:
            raise TimeoutError(f"no order in {TIMEOUT:g} s")
        endpoint.wait_all([endpoint.receive(words, 0, ORDER)], TIMEOUT, "an order")
        which, nbytes, calls = words.tolist()
        if which == LEAVE:
            return
        endpoint.wait_all([endpoint.send(words[:1], 0, READY)], TIMEOUT, "rank 0 to hear that we are ready")
        for _ in range(calls):
            ways[which].answer(nbytes)


def measure(endpoint: Endpoint, arguments: argparse.Namespace) -> dict | None:
    kinds, release = ways(endpoint, arguments.largest)
    if endpoint.rank == 1:
        answer(endpoint, kinds)
        release()
        return None
    print(latency.HEADINGS)
    results = []
    for nbytes in latency.sizes(min(8, arguments.largest), arguments.largest, 8):
        calls = min(max(TURN_BYTES // nbytes, 1), TURN_CALLS)
        seconds = {way.name: [] for way in kinds}
        for which in range(len(kinds)):
            turn(endpoint, kinds, which, nbytes, 1)  # whatever is done once only, is done
        for _ in range(arguments.repetitions):
            for which, way in enumerate(kinds):
                seconds[way.name] += turn(endpoint, kinds, which, nbytes, calls)
        rows = {name: latency.summary(name, nbytes, times) for name, times in seconds.items()}
        print(*map(latency.line, rows.values()), "", sep="\n", flush=True)
        results += rows.values()
    order(endpoint, LEAVE, 0, 0)
    release()
    speed = {name: row["gbps"] for name, row in rows.items()}
    return {
        "memcpy_gbps": speed["memcpy"],
        "raw_get_gbps": speed["raw get"],
        "fetch_gbps": speed["get"],
        "fetch_ratio": speed["get"] / speed["memcpy"],
        "results": results,
    }


def byte_count(text: str) -> int:
    number = job.count(text)
    if number > PIECE:
        raise argparse.ArgumentTypeError(f"{number}, expected at most {PIECE}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency and speed of the transport between two ranks.")
    parser.add_argument("--largest", metavar="BYTES", type=byte_count, default=168_000_000)
    parser.add_argument("--repetitions", metavar="N", type=job.count, default=10, help="turns of each way at each size")
    job.run("transport", parser, lambda arguments: 2, measure)


if __name__ == "__main__":
    main()
