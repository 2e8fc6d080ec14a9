"""What L-BFGS does to vectors for one direction, against the bytes that it must move.

The real method runs on one process's vectors, on a quadratic. For each direction with a full history two messages are
timed: the newest pair and the new dot products; the combination and the first trial. Each of their commands must read
every vector that it names once and write its target once; how often lines travel besides, for caches that fetch what
they are about to overwrite, is not counted. After each evaluation the same vectors are copied and read (a BLAS dot
product), so that all see the same moods of the machine: the faster of the two is the memory's bandwidth. All by one
thread, and seconds are those that it had a core: who else wants it says nothing of the memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import machine  # noqa: F401  (before NumPy: one BLAS thread)
import numpy as np

from distbelief.comm.endpoint import Endpoint
from distbelief.kernels import use_threads
from distbelief.optim import LBFGS, StopRules, Vectors
from distbelief.optim.space import DIRECTION, GRADIENT, PARAMETERS, Combine, Command, Dots, Multiply
from distbelief.server.program import vectors_moved

CURVATURES, SPARE = "curvatures", "spare"  # vectors of the objective and of the copy


class Timed:
    """A space that takes the time of the two messages of each direction."""

    def __init__(self, vectors: Vectors, history: int):
        self._vectors = vectors
        self._full = 2 * history + 1
        self.inside = 0.0
        self.directions: list[tuple[float, int, int]] = []  # seconds, vectors moved, messages
        self._began: tuple[float, int, int] | None = None

    def run(self, commands: Sequence[Command]) -> list[np.ndarray]:
        began = time.thread_time()
        answers = self._vectors.run(commands)
        seconds = time.thread_time() - began
        self.inside += seconds
        told = seconds, sum(map(vectors_moved, commands)), 1
        if any(isinstance(command, Dots) and len(command.columns) == self._full for command in commands):
            self._began = told
        elif self._began and any(isinstance(command, Combine) and command.target == DIRECTION for command in commands):
            self.directions.append(tuple(map(sum, zip(self._began, told, strict=True))))
            self._began = None
        return answers


def measure(endpoint: Endpoint | None, arguments: argparse.Namespace) -> dict:
    """Local, in one process: `endpoint` is not used."""
    use_threads(1)
    method = LBFGS(history=arguments.history)
    vectors = Vectors((*method.vectors, CURVATURES, SPARE), arguments.size, np.float32)
    # Eigenvalues from 1 to 1e4: the method is far from done when the measurement is.
    vectors[CURVATURES][:] = np.geomspace(1, 1e4, arguments.size)
    vectors[PARAMETERS][:] = 1
    space = Timed(vectors, arguments.history)
    bandwidths: dict[str, list[float]] = {"copy": [], "read": []}
    outside = 0.0

    def evaluate() -> float:
        nonlocal outside
        began = time.thread_time()
        vectors.run([Multiply(GRADIENT, CURVATURES, PARAMETERS)])
        ((loss,),) = vectors.run([Dots((GRADIENT,), (PARAMETERS,))])[0]
        moved = 2 * vectors[SPARE].nbytes
        bandwidths["copy"].append(moved / _seconds(lambda: np.copyto(vectors[SPARE], vectors[CURVATURES])))
        bandwidths["read"].append(moved / _seconds(lambda: np.dot(vectors[SPARE], vectors[CURVATURES])))
        outside += time.thread_time() - began
        return float(loss) / 2

    began = time.thread_time()
    evaluations = 2 * (arguments.history + 2) + arguments.directions  # some steps take more than one
    method.minimise(space, evaluate, StopRules(None, None, evaluations))
    scalars = time.thread_time() - began - space.inside - outside
    return _summary(space.directions, bandwidths, vectors[SPARE].nbytes, scalars / evaluations)


def _summary(directions: list[tuple[float, int, int]], bandwidths: dict, nbytes: int, scalars: float) -> dict:
    copy, read = (statistics.median(bandwidths[way]) for way in ("copy", "read"))
    seconds = statistics.median(seconds for seconds, _, _ in directions)
    _, moved, messages = directions[-1]
    rate = moved * nbytes / seconds
    row = {
        "bandwidth_ratio": rate / max(copy, read),
        "gbps": rate / 1e9,
        "copy_gbps": copy / 1e9,
        "read_gbps": read / 1e9,
        "ms": seconds * 1e3,
        "vectors_moved": moved,
        "round_trips": messages,
        "coordinator_ms": scalars * 1e3,
        "measured": len(directions),
    }
    print("".join(f"{name:>{max(len(name), 8) + 2}}" for name in row))
    print("".join(f"{value:>{max(len(name), 8) + 2}.3g}" for name, value in row.items()), flush=True)
    return row


def _seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began
