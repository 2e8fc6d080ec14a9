"""What a coordinator and a shard cost while a replica computes and wants nothing of them.

    mpirun -n 3 python bench/idle.py [--seconds S] [--repetitions N]

Rank 0 is the coordinator, rank 1 a shard, rank 2 a replica: the real algorithms.downpour. In each of a few steps the
replica sleeps for S seconds in the middle of a gradient, and looks how much CPU time the other two processes have had
meanwhile. The last line is JSON: `coordinator_cpu` and `shard_cpu`, percent of a core, medians over the steps.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import job
import machine  # noqa: F401  (before NumPy: one BLAS thread)
import numpy as np
from downpour import Problem, Silence

from distbelief.algorithms import downpour
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.endpoint import Endpoint
from distbelief.nn import Arena, Network
from distbelief.optim import Adagrad

WIDTHS, BATCH = [20, 30, 10], 8
BUSY = 1  # steps before the others are left alone: they evaluate the beginning meanwhile
TIMEOUT = 60.0
PIDS, SHARES = 1, 2  # tags


class Dozing:
    """A network that sleeps before it computes a gradient (algorithms.model.Model)."""

    def __init__(self, network: Network, doze: Callable[[], None]):
        self._network = network
        self._doze = doze

    def __getattr__(self, name: str):
        return getattr(self._network, name)

    def gradient(self, parameters: Arena, batch, gradient: Arena) -> float:
        self._doze()
        return self._network.gradient(parameters, batch, gradient)


class DozingProblem(Problem):
    """Small random data for a model that dozes."""

    def __init__(self, doze: Callable[[], None], steps: int):
        super().__init__(WIDTHS, BATCH, BUSY, steps)
        self._doze = doze

    def model(self) -> Dozing:
        return Dozing(super().model(), self._doze)


def seconds_of_cpu(pid: int) -> float:
    """What a process has had so far."""
    with open(f"/proc/{pid}/schedstat") as file:
        return 1e-9 * int(file.read().split()[0])


def measure(endpoint: Endpoint, arguments: argparse.Namespace) -> dict | None:
    aside = endpoint.split(0, endpoint.rank)
    pids, shares = np.empty((2, 1), np.int64), np.empty((BUSY + arguments.repetitions, 2))
    if endpoint.rank == 2:
        receiving = [aside.receive(pids[rank], rank, PIDS) for rank in range(2)]
        aside.wait_all(receiving, TIMEOUT, "the others to say who they are")
    else:
        aside.wait_all([aside.send(np.array([os.getpid()]), 2, PIDS)], TIMEOUT, "rank 2 to hear who we are")
    step = iter(range(len(shares)))

    def doze() -> None:
        before, began = [seconds_of_cpu(pid) for pid in pids.flat], time.monotonic()
        time.sleep(arguments.seconds)
        spent = np.subtract([seconds_of_cpu(pid) for pid in pids.flat], before)
        shares[next(step)] = 100 * spent / (time.monotonic() - began)

    outcome = downpour.train(
        endpoint,
        Roles(coordinator=0, shards=[1], replicas=[2]),
        DozingProblem(doze, arguments.repetitions),
        Adagrad(1e-3),
        Downpour(),
        Stop(epochs=1),
        Evaluate(),
        Silence(),
        TIMEOUT + len(shares) * arguments.seconds,
    )
    if outcome.failed:
        raise RuntimeError(f"training failed: {outcome.fault}")
    if endpoint.rank == 2:
        aside.wait_all([aside.send(shares, 0, SHARES)], TIMEOUT, "rank 0 to hear")
    if endpoint.rank > 0:
        return None
    aside.wait_all([aside.receive(shares, 2, SHARES)], TIMEOUT, "what rank 2 has seen")
    coordinator, shard = [statistics.median(column) for column in shares[BUSY:].T.tolist()]
    print(f"idle, a coordinator takes {coordinator:.1f}% of a core, a shard {shard:.1f}%")
    return {"coordinator_cpu": coordinator, "shard_cpu": shard}


def main() -> None:
    parser = argparse.ArgumentParser(description="The CPU time of a coordinator and a shard that nobody wants.")
    parser.add_argument("--seconds", metavar="S", type=float, default=2.0, help="how long they are left alone")
    parser.add_argument("--repetitions", metavar="N", type=job.count, default=3, help="how often")
    job.run("idle", parser, lambda arguments: 3, measure)


if __name__ == "__main__":
    main()
