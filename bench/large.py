"""A network that fills the machine: some steps of Downpour, how long they take, and the memory of all ranks together.

    mpirun -n 2 python bench/large.py [--net image1700m] [--steps 3] [--batch 8]

One replica of as many partitions as there are ranks, a shard beside each: masters and Adagrad's sums in float32 on
the shards, parameters in bfloat16 in the replica, gradients sent off as they are produced (`downpour.lean`). The
examples are made up. Memory is resident bytes (of what processes share, each its part), looked at four times a
second; the figure is the sum of all ranks' peaks, which the sum never passes. The last line is JSON.
"""

import argparse
import time
from pathlib import Path

import job
import numpy as np
from memory import Peak

from distbelief.algorithms import downpour
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.endpoint import Endpoint
from distbelief.config import load
from distbelief.experiment import Experiment
from distbelief.optim import Adagrad
from distbelief.server import Server

EXAMPLES = Path(__file__).parents[1] / "examples"
NETWORKS = {"image80m": "imagenet_80m", "image330m": "imagenet_330m", "image1700m": "imagenet"}
TIMEOUT = 600.0
TOLD = 60  # tag


class Watched(Experiment):
    """A problem that remembers what each step's loss was, and when it was done."""

    def __init__(self, config):
        super().__init__(config)
        self.losses: list[float] = []
        self.times: list[float] = []

    def cut(self, partitions: int):
        cut = super().cut(partitions)
        make = cut.model

        def model(peers):
            network = make(peers)
            gradient = network.gradient

            def watched(parameters, batch, into, needed=None, produced=None):
                loss = gradient(parameters, batch, into, needed, produced)
                self.losses.append(loss)
                self.times.append(time.perf_counter())
                return loss

            network.gradient = watched
            return network

        cut.model = model
        return cut


class Nowhere:
    """Keeps no parameters (algorithms.keeper.Keeper)."""

    parameters = None

    def begin(self) -> None: ...

    def add(self, start: int, values: np.ndarray) -> None: ...

    def end(self) -> None: ...


class Heard:
    """A listener that remembers the losses on the held-out examples."""

    def __init__(self):
        self.losses: list[float] = []

    def progress(self, progress) -> None: ...

    def evaluated(self, evaluation) -> None:
        self.losses.append(evaluation.loss)


def measure(endpoint: Endpoint, arguments: argparse.Namespace) -> dict | None:
    ranks = list(range(endpoint.size))
    settings = [
        f"data={{train={{generated={arguments.steps * arguments.batch + arguments.batch}}}, "
        f"held_out={arguments.batch}, batch={arguments.batch}}}",
        "network.dtype=bfloat16",
    ]
    problem, heard = Watched(load(EXAMPLES / f"{NETWORKS[arguments.net]}.toml", settings)), Heard()
    with Peak() as peak:
        began = time.perf_counter()
        outcome = downpour.train(
            endpoint,
            Roles(coordinator=0, shards=ranks, replicas=[0], cut=[ranks]),
            problem,
            Adagrad(rate=arguments.rate),
            Downpour(lean=True, local_rate=0),
            Stop(epochs=1),
            Evaluate(),
            heard,
            TIMEOUT,
            Server(shards=len(ranks), place="beside"),
            Nowhere(),
        )
        seconds = time.perf_counter() - began
    told = np.zeros(endpoint.size)
    told[endpoint.rank] = peak.nbytes
    if endpoint.rank != 0:
        endpoint.wait_all([endpoint.send(told[endpoint.rank :][:1], 0, TOLD)], TIMEOUT, "rank 0 to hear our memory")
        return None
    hearing = [endpoint.receive(told[rank : rank + 1], rank, TOLD) for rank in ranks[1:]]
    endpoint.wait_all(hearing, TIMEOUT, "the memory of all ranks")
    assert not outcome.failed, outcome.fault
    parameters = problem.model().layout.size
    losses, steps = problem.losses, np.diff(problem.times)
    what = f"{parameters:,} parameters, minibatches of {arguments.batch}"
    print(f"{what}, {endpoint.size} partitions, {seconds:.0f} s in all")
    print(f"loss by step     {'  '.join(f'{loss:.1f}' for loss in losses)}")
    print(f"held out         {heard.losses[0]:.1f} before, {heard.losses[-1]:.1f} after")
    print(f"seconds a step   {np.median(steps):.1f}")
    print(f"resident         {told.sum() / 2**30:.2f} GiB: {'  '.join(f'{nbytes / 2**30:.2f}' for nbytes in told)}")
    return {
        "parameters": parameters,
        "losses": losses,
        "held_out": [heard.losses[0], heard.losses[-1]],
        "step_s": float(np.median(steps)),
        "seconds": seconds,
        "bytes_resident": int(told.sum()),
        "gib_resident": told.sum() / 2**30,
        "bytes_per_parameter": told.sum() / parameters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps of Downpour on a network that fills the machine.")
    parser.add_argument("--net", choices=sorted(NETWORKS), default="image1700m")
    parser.add_argument("--steps", metavar="K", type=job.count, default=3)
    parser.add_argument("--batch", metavar="N", type=job.count, default=8)
    parser.add_argument("--rate", type=float, default=1e-3, help="of Adagrad (default: %(default)s)")
    parser.add_argument("--partitions", metavar="P", type=job.count, default=2, help="ranks: mpirun -n P")
    job.run("large", parser, lambda arguments: arguments.partitions, measure)


if __name__ == "__main__":
    main()
