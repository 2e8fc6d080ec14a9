"""One of the replicas is much slower than the others: what an evaluation costs, against the ideal.

The ideal is the work divided by the speed of all replicas together: with 4, one of them 10 times slower, 3.1. Three
ways to share the work: small portions with backup copies; small portions without; a portion for each replica, as
large as the others'. In the simulator virtual time passes as models say. On real processes a replica takes its time
by sleeping, the slow one longer, so that ranks may outnumber cores. A sleep takes longer than it was asked to, the
more so on a busy machine: there the speed of a replica is what it was, examples by the seconds of its gradients.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distbelief.algorithms.roles import Roles
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.sandblaster.training import train
from distbelief.algorithms.settings import Evaluate
from distbelief.comm.endpoint import Endpoint
from distbelief.comm.sim import Cluster
from distbelief.launch.roles import assign
from distbelief.nn.arena import Arena, Layout
from distbelief.optim import Result
from distbelief.optim.space import GRADIENT, PARAMETERS, Combine

MINIBATCH = 50
TIMEOUT = 60.0
SPEED = 1  # tag
SECONDS = 250e-6  # that a gradient takes for an example on a replica of full speed
FLOPS = 1e9
PARAMETERS_SIZE = 10_000
WAYS = {
    "backups": {"portion": 200, "ship_every": 8, "backup": True},
    "no_backups": {"portion": 200, "ship_every": 8, "backup": False},
    "one_portion_each": {"ship_every": 1, "backup": False},
}


@dataclass(frozen=True)
class Steps:
    """Instead of a method (optim.method.Method): evaluations at points that differ."""

    evaluations: int
    vectors = (PARAMETERS, GRADIENT)

    def minimise(self, space, evaluate, stop, listener=None, advance=None, clock=time.monotonic):
        for _ in range(self.evaluations):
            evaluate()
            space.run([Combine(PARAMETERS, (1.0, -0.01), (PARAMETERS, GRADIENT))])
        return Result(math.nan, math.nan, self.evaluations, self.evaluations, "evaluations")


@dataclass
class Minibatch:
    size: int


class Model:
    """Takes time, and nothing else (algorithms.model.Model)."""

    layout = Layout({"w": (PARAMETERS_SIZE,)})
    dtype = np.dtype(np.float32)

    def __init__(self, seconds: float):
        """`seconds`: of real time for an example; 0 in the simulator."""
        self._seconds = seconds
        self.examples = 0
        self.taken = 0.0
        """Seconds of all gradients."""

    def initialise(self, parameters: Arena, seed: int) -> None:
        parameters.flat[:] = 1

    def gradient(self, parameters: Arena, batch: Minibatch, gradient: Arena) -> float:
        began = time.perf_counter()
        if self._seconds:
            time.sleep(self._seconds * batch.size)
        gradient.flat[:] = parameters.flat
        self.examples += batch.size
        self.taken += time.perf_counter() - began
        return 0.5

    def score(self, parameters: Arena, batch: Minibatch) -> tuple[float, None]:
        return 0.5 * batch.size, None

    def flops(self, examples: int) -> float:
        return examples * SECONDS * FLOPS / 3


class Examples:
    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, positions):
        for start in range(0, len(positions), MINIBATCH):
            yield Minibatch(min(MINIBATCH, len(positions) - start))

    def read_ahead(self, positions) -> None: ...


class Problem:
    """algorithms.model.Problem, as far as Sandblaster knows it."""

    seed = 0

    def __init__(self, examples: int, seconds: float):
        self._examples = examples
        self._model = Model(seconds)

    def model(self) -> Model:
        return self._model

    def examples(self) -> Examples:
        return Examples(self._examples)

    def held_out_examples(self) -> Examples:
        return Examples(MINIBATCH)


class Listener:
    """Keeps what each evaluation took."""

    def progress(self, progress): ...

    def evaluated(self, evaluation): ...

    def batch_evaluated(self, evaluation): ...


def measure(endpoint: Endpoint | None, arguments) -> dict | None:
    """All three ways in turn, on the ranks of `endpoint`, or without one in the simulator; rank 0 has the results."""
    roles = assign(arguments.replicas + 1, 1)
    rows = {}
    for way, sharing in WAYS.items():
        sharing = {"portion": arguments.examples // arguments.replicas} | sharing
        evaluations = arguments.evaluations if way == "backups" else max(arguments.evaluations // 2, 1)
        settings = Sandblaster(method=Steps(evaluations), **sharing)
        if endpoint is None:
            taken, speed = simulated(roles, settings, arguments.examples, arguments.slow)
        else:
            taken, speed = real(roles, settings, arguments.examples, arguments.slow, endpoint)
        rows[way] = statistics.median(taken) / (arguments.examples / speed) if taken else math.nan
    if endpoint is not None and endpoint.rank:
        return None
    print(f"{'':<20}{'time per evaluation / ideal':>30}")
    for way, ratio in rows.items():
        print(f"{way.replace('_', ' '):<20}{ratio:>30.2f}")
    return {
        "ratio_to_ideal": rows["backups"],
        "ratio_small_portions": rows["no_backups"],
        "ratio_without_backups": rows["one_portion_each"],
        "real_processes": endpoint is not None,
    }


def simulated(roles: Roles, settings: Sandblaster, examples: int, slow: float) -> tuple[list[float], float]:
    """Seconds of each evaluation, and the speed of all replicas together in examples per second."""
    cluster = Cluster(
        1 + len(roles.replicas), flops=FLOPS, speeds={roles.replicas[-1]: 1 / slow}, latency=5e-6, jitter=0.1
    )
    outcomes = cluster.run(lambda each: timed(each, roles, settings, Problem(examples, 0.0)))
    return outcomes[0], (len(roles.replicas) - 1 + 1 / slow) / SECONDS


def real(
    roles: Roles, settings: Sandblaster, examples: int, slow: float, endpoint: Endpoint
) -> tuple[list[float], float]:
    """The same on real processes; on rank 0."""
    problem = Problem(examples, SECONDS * (slow if endpoint.rank == roles.replicas[-1] else 1))
    taken = timed(endpoint, roles, settings, problem)
    mine = np.array([problem.model().examples / max(problem.model().taken, 1e-9)])
    if endpoint.rank:
        endpoint.wait_all([endpoint.send(mine, 0, SPEED)], TIMEOUT, "rank 0 to hear how fast we were")
        return [], 0.0
    speeds = np.zeros((endpoint.size, 1))
    telling = [endpoint.receive(speeds[rank], rank, SPEED) for rank in range(1, endpoint.size)]
    endpoint.wait_all(telling, TIMEOUT, "all ranks to say how fast they were")
    return taken, float(speeds.sum())


def timed(endpoint: Endpoint, roles: Roles, settings: Sandblaster, problem: Problem) -> list[float]:
    """Seconds of each evaluation, on rank 0."""
    method = Timed(settings.method, endpoint.clock)
    settings = Sandblaster(settings.portion, settings.ship_every, settings.shipments, settings.backup, method)
    train(endpoint, roles, problem, settings, Evaluate(), Listener(), TIMEOUT)
    return method.taken


class Timed:
    """A method whose evaluations are timed."""

    def __init__(self, method: Steps, clock: Callable[[], float]):
        self._method = method
        self._clock = clock
        self.vectors = method.vectors
        self.taken: list[float] = []

    def minimise(self, space, evaluate, *arguments, **named):
        def timed() -> float:
            began = self._clock()
            loss = evaluate()
            self.taken.append(self._clock() - began)
            return loss

        return self._method.minimise(space, timed, *arguments, **named)
