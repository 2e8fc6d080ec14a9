"""What the parameter server costs a replica: Downpour beside the same replica with no server, in the same job.

    mpirun -n 2 python bench/downpour.py [--net speech] [--batch N] [--n-fetch N] [--n-push N] [--wire float32|bfloat16]

Rank 0 is coordinator and shard (Adagrad), rank 1 is the replica: the real algorithms.downpour, on data made up. The
two take turns, so that both see the same moods of the machine. Alone, rank 1 runs the plain loop of serial SGD, the
same model on the same data: gradient, step; nothing is accrued, fetched or pushed, and rank 0 sleeps. Of each turn
only `--steps` are timed, rounded up to whole periods of fetches and pushes; those before them fill the pipeline.

The last line is JSON. `examples_per_s` and `alone_examples_per_s` are medians over the turns, `efficiency` the first
divided by the second; `fetching_ms` and `pushing_ms` are what the replica waited for the server in a step, on
average over all steps.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator

import job
import machine  # noqa: F401  (before NumPy: one BLAS thread)
import numpy as np

from distbelief.algorithms import downpour
from distbelief.algorithms.progress import Evaluation, Progress
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.endpoint import Endpoint
from distbelief.data import Batch, Batches, Dataset, dataset_of
from distbelief.kernels import sgd
from distbelief.nn import Arena, Dense, Network
from distbelief.optim import Adagrad
from distbelief.server import Server

# Widths from the inputs up. Speech: Dean et al. 2012, section 5; 41,777,152 parameters.
NETWORKS = {"speech": [440, 2560, 2560, 2560, 2560, 8192]}
RATE = 1e-4
EXAMPLES = 4096
TIMEOUT = 300.0
GO, DONE = 1, 2  # tags, on an endpoint of the measurement's own


class Stopwatch:
    """Batches for `steps` steps, and before them for `lead` that are not timed: one epoch (algorithms.model.Epochs)."""

    def __init__(self, batches: Batches, lead: int, steps: int):
        self._batches = batches
        self._lead = lead
        self._steps = steps
        self.seconds = math.nan

    def epoch(self, number: int) -> Iterator[Batch]:
        for step, batch in enumerate(self._endless()):
            # Asked for a batch, the one before has been dealt with.
            if step == self._lead:
                began = time.perf_counter()
            if step == self._lead + self._steps:
                self.seconds = time.perf_counter() - began
                return
            yield batch

    def _endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self._batches.epoch(epoch)
            epoch += 1


class Problem:
    """A network of sigmoids under a softmax, and random examples (algorithms.model.Problem). All methods are Local."""

    seed = 1

    def __init__(self, widths: list[int], batch: int, lead: int, steps: int):
        self._widths = widths
        self._batch = batch
        self._lead, self._steps = lead, steps
        random = np.random.default_rng(self.seed)
        inputs = random.standard_normal((max(EXAMPLES, batch), widths[0]), np.float32)
        self._data: Dataset = dataset_of(inputs, random.integers(0, widths[-1], len(inputs)))

    def model(self) -> Network:
        pairs = list(zip(self._widths, self._widths[1:], strict=False))
        activations = ["sigmoid"] * (len(pairs) - 1) + ["linear"]
        layers = [Dense(f"dense{i}", *pair, activations[i]) for i, pair in enumerate(pairs)]
        return Network(layers, self._batch)

    def batches(self, replica: int = 0, replicas: int = 1) -> Stopwatch:
        whole = self._data.examples // self._batch * self._batch  # every batch is of one size
        self.stopwatch = Stopwatch(Batches(self._data, np.arange(whole), self._batch), self._lead, self._steps)
        return self.stopwatch

    def held_out(self) -> Iterator[Batch]:
        """A single example: evaluations are not what is measured."""
        return Batches(self._data, np.arange(1), 1).in_order()


class Silence:
    """Hears of progress (algorithms.progress.Listener) and keeps the last evaluation."""

    latest: Evaluation

    def progress(self, progress: Progress) -> None:
        pass

    def evaluated(self, evaluation: Evaluation) -> None:
        self.latest = evaluation

    def warned(self, words: str) -> None:
        print(words, file=sys.stderr, flush=True)


def alone(problem: Problem) -> float:
    """Rank 1: seconds of the timed steps of serial SGD."""
    model = problem.model()
    parameters, gradient = Arena(model.layout), Arena(model.layout)
    model.initialise(parameters, problem.seed)
    stopwatch = problem.batches()
    for batch in stopwatch.epoch(0):
        model.gradient(parameters, batch, gradient)
        sgd(parameters.flat, gradient.flat, RATE)
    return stopwatch.seconds


def served(endpoint: Endpoint, problem: Problem, settings: Downpour, server: Server) -> tuple[float, Evaluation | None]:
    """Rank 1: seconds of the timed steps of Downpour. Rank 0: the last evaluation. Collective over the endpoint."""
    listener = Silence()
    outcome = downpour.train(
        endpoint,
        Roles(coordinator=0, shards=[0], replicas=[1]),
        problem,
        Adagrad(RATE),
        settings,
        Stop(epochs=1),
        Evaluate(),
        listener,
        TIMEOUT,
        server,
    )
    if outcome.failed:
        raise RuntimeError(f"training failed: {outcome.fault}")
    return (math.nan, listener.latest) if endpoint.rank == 0 else (problem.stopwatch.seconds, None)


def measure(endpoint: Endpoint, arguments: argparse.Namespace) -> dict | None:
    settings = Downpour(n_fetch=arguments.n_fetch, n_push=arguments.n_push)
    wire = "native" if arguments.wire == "float32" else arguments.wire
    server = Server(fetch_wire=wire, push_wire=wire)
    period = math.lcm(settings.n_fetch, settings.n_push)
    steps = -(-arguments.steps // period) * period
    widths = [max(round(width * arguments.scale), 1) for width in NETWORKS[arguments.net]]
    problem = Problem(widths, arguments.batch, 2 * period, steps)
    aside = endpoint.split(0, endpoint.rank)
    seconds = np.empty(2)  # alone, served

    if endpoint.rank == 1:
        for _ in range(arguments.repetitions):
            listen(aside, np.empty(1), 0, GO)
            seconds[0] = alone(problem)
            say(aside, seconds, 0, DONE)
            seconds[1], _ = served(endpoint, problem, settings, server)
            say(aside, seconds, 0, DONE)
        return None

    parameters = problem.model().layout.size
    print(f"{arguments.net} at scale {arguments.scale:g}: {parameters} parameters, {steps} steps timed in each turn")
    print(f"{'examples/s':>12} {'alone':>10} {'efficiency':>11}")
    speeds, alone_speeds, fetching, pushing = [], [], [], []
    for _ in range(arguments.repetitions):
        say(aside, np.empty(1), 1, GO)
        listen(aside, seconds, 1, DONE)
        _, evaluation = served(endpoint, problem, settings, server)
        listen(aside, seconds, 1, DONE)
        alone_speed, speed = (arguments.batch * steps / seconds).tolist()
        alone_speeds.append(alone_speed)
        speeds.append(speed)
        fetching.append(1e3 * evaluation.seconds_fetching / evaluation.step)
        pushing.append(1e3 * evaluation.seconds_pushing / evaluation.step)
        print(f"{speed:>12.1f} {alone_speed:>10.1f} {speed / alone_speed:>11.3f}", flush=True)
    speed, alone_speed = statistics.median(speeds), statistics.median(alone_speeds)
    return {
        "steps": steps,
        "parameters": parameters,
        "examples_per_s": speed,
        "alone_examples_per_s": alone_speed,
        "efficiency": speed / alone_speed,
        "fetching_ms": statistics.median(fetching),
        "pushing_ms": statistics.median(pushing),
        "turns": {"examples_per_s": speeds, "alone_examples_per_s": alone_speeds},
    }


def say(endpoint: Endpoint, words: np.ndarray, dest: int, tag: int) -> None:
    endpoint.wait_all([endpoint.send(words, dest, tag)], TIMEOUT, f"rank {dest} to hear")


def listen(endpoint: Endpoint, words: np.ndarray, source: int, tag: int) -> None:
    endpoint.wait_all([endpoint.receive(words, source, tag)], TIMEOUT, f"a word from rank {source}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Examples per second of a replica with and without a server.")
    parser.add_argument("--net", choices=sorted(NETWORKS), default="speech")
    parser.add_argument("--batch", metavar="N", type=job.count, default=128, help="examples in a minibatch")
    parser.add_argument("--n-fetch", metavar="N", type=job.count, default=1, help="steps from fetch to fetch")
    parser.add_argument("--n-push", metavar="N", type=job.count, default=1, help="steps from push to push")
    parser.add_argument("--wire", choices=["float32", "bfloat16"], default="float32", help="of fetches and pushes")
    parser.add_argument("--steps", metavar="K", type=job.count, default=10, help="steps timed in each turn")
    parser.add_argument("--repetitions", metavar="N", type=job.count, default=5, help="turns of each")
    parser.add_argument("--scale", metavar="F", type=float, default=1.0, help="width of the network, for a quick look")
    job.run("downpour", parser, lambda arguments: 2, measure)


if __name__ == "__main__":
    main()
