"""The parameter server, one client and S shards: beside a copy in memory and the update rule's kernel alone.

    mpirun -n S+1 python bench/server.py [--params N] [--shards S] [--wire float32|bfloat16]

copy            np.copyto of all parameters, on rank 0, the client's
adagrad         the kernel alone, over all parameters, on rank 0 too
fetch           the parameters of all shards, until they are the replica's: piece by piece, bfloat16 made wide
fetch as held   the same for a replica that holds its parameters as they travel, in bfloat16 (only with --wire bfloat16)
raw get         MPI's own Rget of as many bytes as travel in a fetch, and Wait
raw send        MPI's own Isend of as many bytes as travel in a push, until 8 bytes that say so have come back
push            a gradient, until every shard has received it and said so; no rule is applied
push + adagrad  the same, and every shard has applied Adagrad before it says so
float32 fetch, float32 push: fetch and push + adagrad of a second server, in float32 (only with --wire bfloat16)

The real Shard, Service and Client take turns with the two that stand beside them, so that all see the same moods of
the machine. GB/s count the float32 parameters once, whatever the wire makes of them. Then the client leaves the
shards alone, twice for `--idle` seconds: once to see what they cost, once with a small push now and then, which meets
them asleep.

The last line is JSON. Medians for all parameters, in milliseconds: `fetch_ms`, `push_ms` (Adagrad applied), `send_ms`
(not applied), `kernel_ms`, `copy_ms`, `raw_get_ms`, `raw_send_ms`; or null: `fetch_held_ms`, of a replica that holds
bfloat16, `float32_fetch_ms` and `float32_push_ms`, of the second server. `fetch_ratio`: copy_ms / fetch_ms.
`push_ratio`: push_ms / (kernel_ms + copy_ms). `idle_cpu`: percent of a core that an idle shard takes, of several the
largest (bench/idle.py has the coordinator's). `push_wait_ms`: the p99 of the time from the start of a small push at
idle shards until the last has answered; the client does not sleep meanwhile, so nearly all of it is the shards waking
up.
"""

import argparse
import contextlib
import itertools
import time
from collections.abc import Iterator

import job
import latency
import machine  # noqa: F401  (before NumPy: one BLAS thread)
import numpy as np
from raw import Raw

from distbelief.algorithms.loop import serve
from distbelief.comm.endpoint import Endpoint, Envelope
from distbelief.kernels import adagrad
from distbelief.optim import Adagrad, State
from distbelief.server import Client, Placement, Server, Service, Shard
from distbelief.server.messages import APPLIED
from distbelief.server.wire import wire_dtype

DTYPE = np.dtype(np.float32)
RATE = 1e-6
SMALLEST = 1 << 10  # parameters
TURN_PARAMETERS, TURN_CALLS = 1 << 20, 50  # a turn is as many calls as go through so many parameters, or so many
NAP = (0.010, 0.020)  # seconds between pushes that are to meet idle shards, which sleep longest by then
TIMEOUT = 60.0
ORDER, ANSWER = 101, 102  # tags, besides the server's
APPLY, KEEP, TELL, TAKE, LEAVE, GO_ON = range(6)  # orders


class SwitchedAdagrad:
    """A rule and its state in one: Adagrad that can be switched off, to see what a push costs without it."""

    def __init__(self):
        self.on = True

    def state(self, size: int, dtype: np.dtype) -> "SwitchedAdagrad":
        self._state = Adagrad(RATE).state(size, dtype)
        self.traffic = self._state.traffic
        return self

    def part(self, start: int, stop: int) -> State:
        return self._state.part(start, stop) if self.on else _Nothing()


class _Nothing:
    """The state of no rule."""

    def apply(self, *update) -> None: ...


class Obedience:
    """A part of a shard's loop (algorithms.loop) that takes orders from the measurement."""

    tags = (ORDER,)

    def __init__(self, endpoint: Endpoint, rule: SwitchedAdagrad, raw: Raw | None):
        self._endpoint = endpoint
        self._rule = rule
        self._raw = raw
        self.finished = self.leaves = False

    def work(self) -> float:
        return TIMEOUT

    def take(self, envelope: Envelope) -> None:
        """Answers with the seconds of CPU that this process has had, and the time."""
        order = np.empty(1, np.int64)
        self._endpoint.wait_all([self._endpoint.receive(order, envelope.source, ORDER)], TIMEOUT, "an order")
        if order[0] in (APPLY, KEEP):
            self._rule.on = order[0] == APPLY
        self.finished, self.leaves = order[0] in (LEAVE, GO_ON), order[0] == LEAVE
        said = np.array([time.process_time(), time.monotonic()])
        self._endpoint.wait_all([self._endpoint.send(said, envelope.source, ANSWER)], TIMEOUT, "an answer to be taken")
        if order[0] == TAKE:
            self._raw.take()


class Bench:
    """The client's rank: `size` parameters on shards that serve already. Local."""

    def __init__(self, endpoint: Endpoint, client: Client, raw: Raw | None, placement: Placement, narrow: bool):
        self._endpoint = endpoint
        self._client = client
        self._raw = raw
        self._shards = range(1, 1 + len(placement))
        self._counts = np.zeros(len(placement), np.int64)
        self._parameters, self._gradient, self._squares, self._other = np.ones((4, placement.size), DTYPE)
        self._held = np.ones(placement.size, np.uint16) if narrow else None

    def order(self, kind: int) -> np.ndarray:
        """Every shard's answer, [shards, 2]: seconds of CPU, and the time."""
        said, order = np.empty((len(self._shards), 2)), np.array([kind])
        requests = [self._endpoint.send(order, rank, ORDER) for rank in self._shards]
        requests += [self._endpoint.receive(said[i], rank, ANSWER) for i, rank in enumerate(self._shards)]
        self._endpoint.wait_all(requests, TIMEOUT, "the shards to obey")
        return said

    def fetch(self, into: np.ndarray | None = None) -> float:
        parameters = self._parameters if into is None else into
        return latency.seconds_of(lambda: self._client.install(self._client.fetch(), parameters))

    def push(self) -> float:
        began = time.perf_counter()
        push = self._client.push(self._gradient, self._counts)
        self._client.wait_push(push)
        return time.perf_counter() - began

    def push_awake(self) -> float:
        """A push whose client does not sleep while it waits for the answer of the last shard."""
        began = time.perf_counter()
        push = self._client.push(self._gradient, self._counts)
        while not push.done():
            if self._endpoint.probe(tag=APPLIED):
                self._client.wait_push(push)
        return time.perf_counter() - began

    def raw_get(self) -> float:
        return latency.seconds_of(self._raw.get)

    def raw_send(self) -> float:
        self.order(TAKE)
        return latency.seconds_of(self._raw.send)

    def copy(self) -> float:
        return latency.seconds_of(lambda: np.copyto(self._other, self._gradient))

    def kernel(self) -> float:
        return latency.seconds_of(lambda: adagrad(self._parameters, self._gradient, self._squares, RATE))

    def second(self, calls: int) -> dict[str, list[float]]:
        """What a second server is measured for, `calls` times."""
        fetches = [self.fetch() for _ in range(calls)]
        self.order(APPLY)
        return {"float32 fetch": fetches, "float32 push": [self.push() for _ in range(calls)]}

    def turn(self, calls: int) -> dict[str, list[float]]:
        """Everything else `calls` times."""
        seconds = {"copy": [self.copy() for _ in range(calls)], "adagrad": [self.kernel() for _ in range(calls)]}
        seconds["raw get"] = [self.raw_get() for _ in range(calls)]
        seconds["fetch"] = [self.fetch() for _ in range(calls)]
        if self._held is not None:
            seconds["fetch as held"] = [self.fetch(self._held) for _ in range(calls)]
        seconds["raw send"] = [self.raw_send() for _ in range(calls)]
        for name, order in (("push", KEEP), ("push + adagrad", APPLY)):
            self.order(order)
            seconds[name] = [self.push() for _ in range(calls)]
        return seconds

    def idle_cpu(self, seconds: float) -> float:
        """Percent of a core that a shard takes while nobody wants anything of it; of several the largest."""
        before = self.order(TELL)
        time.sleep(seconds)
        cpu, wall = (self.order(TELL) - before).T
        return float((100 * cpu / wall).max())

    def push_waits(self, seconds: float) -> list[float]:
        """How long small pushes take that meet idle shards."""
        random = np.random.default_rng(0)
        waits, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(random.uniform(*NAP))
            waits.append(self.push_awake())
        return waits


def table(benches: list[Bench], size: int, repetitions: int) -> dict[str, dict]:
    """The lines of one size, by what they measure."""

    def turn(calls: int) -> dict[str, list[float]]:
        seconds = benches[0].turn(calls)
        for bench in benches[1:]:
            benches[0].order(GO_ON)
            seconds |= bench.second(calls)
            bench.order(GO_ON)
        return seconds

    calls = min(max(TURN_PARAMETERS // size, 1), TURN_CALLS)
    turn(1)  # whatever is done once only, is done
    seconds = turn(calls)
    for _ in range(repetitions - 1):
        for name, times in turn(calls).items():
            seconds[name] += times
    return {name: latency.summary(name, size * DTYPE.itemsize, times) for name, times in seconds.items()}


def hold(endpoints: list[Endpoint], placement: Placement, servers: list[Server]) -> None:
    """A shard's rank: serve until the measurement lets us go, each server in turn. Collective, with `use`."""
    interval, raw = placement.intervals[endpoints[0].rank - 1], Raw(travelling(placement, servers[0]))
    windows, parts = [], []
    for endpoint, settings in zip(endpoints, servers, strict=True):
        window, rule = endpoint.window(Shard.window_bytes(interval, DTYPE, settings)), SwitchedAdagrad()
        shard = Shard(interval, np.zeros(interval.size, DTYPE), rule, window, settings)
        windows.append(window)
        parts.append((Service(endpoint, shard, TIMEOUT, settings), Obedience(endpoint, rule, raw)))
    for endpoint, (service, obedience) in itertools.cycle(zip(endpoints, parts, strict=True)):
        obedience.finished = False
        serve(endpoint, [service, obedience])
        if obedience.leaves:
            break
    for window in windows:
        window.free()
    raw.free()


def travelling(placement: Placement, settings: Server) -> list[int]:
    """Bytes of each shard in a fetch, and in a push."""
    return [interval.size * wire_dtype(settings.push_wire, DTYPE).itemsize for interval in placement.intervals]


@contextlib.contextmanager
def use(endpoints: list[Endpoint], placement: Placement, servers: list[Server]) -> Iterator[list[Bench]]:
    """The client's rank: the shards at work, for the first of the servers. Collective, with `hold`."""
    raw, ranks = Raw(travelling(placement, servers[0])), list(range(1, 1 + len(placement)))
    windows, benches = [], []
    for endpoint, settings in zip(endpoints, servers, strict=True):
        windows.append(endpoint.window(Client.room_bytes(placement, settings)))
        client = Client(endpoint, windows[-1], placement, ranks, DTYPE, TIMEOUT, settings, number=0, room=0)
        benches.append(Bench(endpoint, client, raw, placement, narrow=settings.fetch_wire == "bfloat16"))
    benches[0].order(TELL)  # once they answer, they hold their parameters
    yield benches
    benches[0].order(LEAVE)
    for window in windows:
        window.free()
    raw.free()


def measure(endpoint: Endpoint, arguments: argparse.Namespace) -> dict | None:
    wire = "native" if arguments.wire == "float32" else arguments.wire
    servers = [Server(shards=arguments.shards, fetch_wire=wire, push_wire=wire)]
    if wire != "native":
        servers.append(Server(shards=arguments.shards))
    endpoints = [endpoint.split(0, endpoint.rank) for _ in servers]
    smallest = max(arguments.shards, min(SMALLEST, arguments.params))
    placements = [Placement(size, arguments.shards) for size in latency.sizes(smallest, arguments.params, 16)]
    if endpoint.rank > 0:
        for placement in [*placements, placements[0]]:
            hold(endpoints, placement, servers)
        return None
    print(latency.HEADINGS)
    results = []
    for placement in placements:
        with use(endpoints, placement, servers) as benches:
            rows = table(benches, placement.size, arguments.repetitions)
        print(*map(latency.line, rows.values()), "", sep="\n", flush=True)
        results += rows.values()
    with use(endpoints, placements[0], servers) as (bench, *_):
        idle_cpu, waits = bench.idle_cpu(arguments.idle), bench.push_waits(arguments.idle)
    push_wait_ms = 1e3 * float(np.percentile(waits, 99))
    print(f"an idle shard takes {idle_cpu:.1f}% of a core; a push that finds it idle waits {push_wait_ms:.2f} ms (p99)")
    ms = {name: row["p50_us"] / 1e3 for name, row in rows.items()}
    return {
        "fetch_ms": ms["fetch"],
        "fetch_held_ms": ms.get("fetch as held"),
        "float32_fetch_ms": ms.get("float32 fetch"),
        "float32_push_ms": ms.get("float32 push"),
        "raw_get_ms": ms["raw get"],
        "raw_send_ms": ms["raw send"],
        "push_ms": ms["push + adagrad"],
        "send_ms": ms["push"],
        "kernel_ms": ms["adagrad"],
        "copy_ms": ms["copy"],
        "fetch_ratio": ms["copy"] / ms["fetch"],
        "push_ratio": ms["push + adagrad"] / (ms["adagrad"] + ms["copy"]),
        "idle_cpu": idle_cpu,
        "push_wait_ms": push_wait_ms,
        "results": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetches and pushes of one client of the parameter server.")
    parser.add_argument("--params", metavar="N", type=job.count, default=42_000_000)
    parser.add_argument("--shards", metavar="S", type=job.count, default=1)
    parser.add_argument("--wire", choices=["float32", "bfloat16"], default="float32", help="of fetches and pushes")
    parser.add_argument("--repetitions", metavar="N", type=job.count, default=10, help="turns of each at each size")
    parser.add_argument("--idle", metavar="SECONDS", type=float, default=2.0, help="how long shards are left alone")
    job.run("server", parser, lambda arguments: arguments.shards + 1, measure)


if __name__ == "__main__":
    main()
