"""What L-BFGS does to vectors for one direction, against the bytes that it must move.

The real method runs on a quadratic, its vectors on S shards, each a process of its own, or in this one process. For
each direction with a full history two messages are timed: the newest pair and the new dot products; the combination and
the first trial. Each of their commands must read every vector that it names once and write its target once; how often
lines travel besides, for caches that fetch what they are about to overwrite, is not counted. After each evaluation
other vectors are copied and read (a BLAS dot product), so that all see the same moods of the machine: the faster of the
two is the memory's bandwidth. Each of these is touched once an evaluation, so that the last cache has it no sooner than
those of the method. All by one thread where the vectors lie, and seconds are those that it had a core: who
else wants it says nothing of the memory. On several shards the row is that of the one that did worst by its own memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import machine  # noqa: F401  (before NumPy: one BLAS thread)
import numpy as np

from distbelief.algorithms.coordination import END, Orders
from distbelief.algorithms.loop import serve
from distbelief.algorithms.sandblaster.coordinator import Pulse
from distbelief.algorithms.sandblaster.space import ShardedSpace
from distbelief.comm.endpoint import Endpoint
from distbelief.kernels import use_threads
from distbelief.optim import LBFGS, Space, StopRules, Vectors
from distbelief.optim.space import DIRECTION, GRADIENT, PARAMETERS, Combine, Command, Dots, Multiply
from distbelief.server import Placement
from distbelief.server.program import vectors_moved
from distbelief.server.vectors import VectorService

CURVATURES = "curvatures"  # of the objective
COPIED, COPY, READ, READ_TOO = SPARE = "copied", "copy", "read", "read too"
TIMEOUT = 120.0
TOLD = 50  # tag
DTYPE = np.dtype(np.float32)


class Timed:
    """A space that takes the time of the two messages of each direction."""

    def __init__(self, space: Space, history: int, clock: Callable[[], float]):
        self._space = space
        self._full = 2 * history + 1
        self._clock = clock
        self.inside = 0.0
        self.directions: list[tuple[float, int, int]] = []  # seconds, vectors moved, messages
        self._began: tuple[float, int, int] | None = None

    def run(self, commands: Sequence[Command]) -> list[np.ndarray]:
        began = self._clock()
        answers = self._space.run(commands)
        seconds = self._clock() - began
        self.inside += seconds
        told = seconds, sum(map(vectors_moved, commands)), 1
        if any(isinstance(command, Dots) and len(command.columns) == self._full for command in commands):
            self._began = told
        elif self._began and any(isinstance(command, Combine) and command.target == DIRECTION for command in commands):
            self.directions.append(tuple(map(sum, zip(self._began, told, strict=True))))
            self._began = None
        return answers


class Here(Timed):
    """Vectors in this process, timed. After an evaluation it measures what the memory gives."""

    def __init__(self, vectors: Vectors, history: int):
        super().__init__(vectors, history, time.thread_time)
        self._vectors = vectors
        self._copy: list[float] = []  # bytes per second
        self._read: list[float] = []

    def __getitem__(self, name: str) -> np.ndarray:
        return self._vectors[name]

    def run(self, commands: Sequence[Command]) -> list[np.ndarray]:
        answers = super().run(commands)
        if any(isinstance(command, Multiply) for command in commands):
            began = time.thread_time()
            source, to, *read = (self._vectors[name] for name in SPARE)
            moved = 2 * to.nbytes
            self._copy.append(moved / _seconds(lambda: np.copyto(to, source)))
            self._read.append(moved / _seconds(lambda: np.dot(*read)))
            self.inside += time.thread_time() - began
        return answers

    @property
    def summary(self) -> np.ndarray:
        """Median seconds of a direction, vectors moved, messages, bytes of a vector, directions, copy, read."""
        seconds = statistics.median(seconds for seconds, _, _ in self.directions)
        _, moved, messages = self.directions[-1]
        memory = statistics.median(self._copy), statistics.median(self._read)
        return np.array([seconds, moved, messages, self._vectors[COPY].nbytes, len(self.directions), *memory])


def measure(endpoint: Endpoint | None, arguments: argparse.Namespace) -> dict | None:
    """On rank 0 the coordinator, on each other rank a shard; without `endpoint` all in this process."""
    use_threads(1)
    method = LBFGS(history=arguments.history)
    names = (*method.vectors, CURVATURES, *SPARE)
    placement = Placement(arguments.size, 1 if endpoint is None else arguments.shards)
    if endpoint is None:
        here = Here(Vectors(names, arguments.size, DTYPE), arguments.history)
        _fill(here, placement, 0)
        facts = _minimise(method, here, arguments, lambda: here.inside)
        return _summary([here.summary], **facts)
    window = endpoint.window(placement.intervals[endpoint.rank - 1].size * DTYPE.itemsize if endpoint.rank else 0)
    if endpoint.rank:
        _serve_shard(endpoint, window, names, placement, arguments.history)
        return None
    shards, pulse = list(range(1, endpoint.size)), Pulse(endpoint, TIMEOUT)
    space = ShardedSpace(endpoint, shards, names, TIMEOUT, lambda until: serve(endpoint, [space, pulse], until))
    facts = _minimise(method, space, arguments, lambda: 0.0)
    pulse.order(END)
    told = np.zeros((len(shards), 7))
    telling = [endpoint.receive(told[rank - 1], rank, TOLD) for rank in shards]
    endpoint.wait_all(telling, TIMEOUT, "the shards to tell what they measured")
    return _summary(list(told), **facts)


def _serve_shard(endpoint: Endpoint, window, names: Sequence[str], placement: Placement, history: int) -> None:
    number = endpoint.rank - 1
    interval = placement.intervals[number]
    service = VectorService(endpoint, window, interval, np.ones(interval.size, DTYPE), names, 0, TIMEOUT)
    service.vectors = here = Here(service.vectors, history)
    _fill(here, placement, number)
    serve(endpoint, [service, Orders(endpoint, 0, TIMEOUT)])
    endpoint.wait_all([endpoint.send(here.summary, 0, TOLD)], TIMEOUT, "rank 0 to hear what this shard measured")


def _fill(here: Here, placement: Placement, shard: int) -> None:
    """Eigenvalues from 1 to 1e4: the method is far from done when the measurement is."""
    start, stop = placement.intervals[shard]
    here[CURVATURES][:] = np.geomspace(1, 1e4, placement.size)[start:stop]
    here[PARAMETERS][:] = 1
    for name in SPARE:
        here[name][:] = 1  # pages of their own


def _minimise(method: LBFGS, space: Space, arguments: argparse.Namespace, others: Callable[[], float]) -> dict:
    """Run the method; what it took of the coordinator. `others`: its seconds that were not the coordinator's."""
    asked = Timed(space, arguments.history, time.perf_counter)

    def evaluate() -> float:
        program = [Multiply(GRADIENT, CURVATURES, PARAMETERS), Dots((GRADIENT,), (PARAMETERS,))]
        ((loss,),) = space.run(program)[0]
        return float(loss) / 2

    began, cpu = time.perf_counter(), time.thread_time()
    evaluations = 2 * (arguments.history + 2) + arguments.directions  # some steps take more than one
    method.minimise(asked, evaluate, StopRules(None, None, evaluations))
    cpu = time.thread_time() - cpu - others()
    seconds = [seconds for seconds, _, _ in asked.directions]
    return {
        "round_trips": asked.directions[-1][2],
        "wall_ms": statistics.median(seconds) * 1e3,
        "coordinator_ms": cpu / evaluations * 1e3,
        "coordinator_cpu": cpu / (time.perf_counter() - began),
    }


def _summary(told: Sequence[np.ndarray], **facts: float) -> dict:
    def ratio(shard: np.ndarray) -> float:
        seconds, moved, _, nbytes, _, copy, read = shard
        return moved * nbytes / seconds / max(copy, read)

    worst = min(told, key=ratio)
    seconds, moved, _, nbytes, measured, copy, read = worst.tolist()
    row = {
        "bandwidth_ratio": ratio(worst),
        "gbps": moved * nbytes / seconds / 1e9,
        "copy_gbps": copy / 1e9,
        "read_gbps": read / 1e9,
        "ms": seconds * 1e3,
        "vectors_moved": int(moved),
        "measured": int(measured),
    } | facts
    print("".join(f"{name:>{max(len(name), 8) + 2}}" for name in row))
    print("".join(f"{value:>{max(len(name), 8) + 2}.3g}" for name, value in row.items()), flush=True)
    return row


def _seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began
