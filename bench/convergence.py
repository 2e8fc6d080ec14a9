"""How many replicas does Downpour stand? Real gradients on Fashion-MNIST, in the simulator.

    python bench/convergence.py [--replicas 1 4 16 64 256] [--results FILE] [--seconds S] [--plot FILE.png]

Every run sees the same number of examples, `--epochs` times the training set, whatever the number of replicas. A
replica takes about a fifth of a millisecond of virtual time for a step (lognormal noise), the network next to nothing:
the staleness comes from the number of replicas, not from slow links. Prints tables of accuracies on the held-out
images, of rates and of staleness, then one JSON line.

Rates: for each rule and number of replicas one is searched by factors of 4, without warmstart, in runs of
`--search-epochs` with the rate divided by the staleness. Where it is not divided, the rate is that one over the number
of replicas: so both take the same steps once all replicas train.

With `--results` each run is kept in a file, and not done again; with `--seconds` no run begins after so many.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from distbelief.algorithms import downpour, serial
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.sim import Cluster
from distbelief.config import load
from distbelief.experiment import Experiment
from distbelief.optim import Adagrad, FixedRate, Trapezoid
from distbelief.server import Ignored, Scaled, Server

CONFIG = Path(__file__).parent.parent / "examples" / "fashion_mnist.toml"
NETWORK = 'network.layers=[{{kind="dense", outputs={units}, activation="relu"}}, {{kind="dense", outputs=10}}]'
RULES = {"fixed": FixedRate, "adagrad": Adagrad}
STALENESS = {"as it is": Ignored(), "scaled": Scaled()}
VARIANTS = {  # rule, whether there is a warmstart, what is done about staleness
    **{f"fixed rate, {late}": ("fixed", False, late) for late in STALENESS},
    **{f"Adagrad, {late}": ("adagrad", False, late) for late in STALENESS},
    **{f"Adagrad + warmstart, {late}": ("adagrad", True, late) for late in STALENESS},
    # To compare with: what R replicas compute with all-reduce, by one with minibatches R times as large.
    "Adagrad, synchronous": ("adagrad", False, "synchronous"),
}
FIRST_RATES = {"fixed": 0.1, "adagrad": 0.02}  # where the search begins
FACTOR = 4.0  # from one rate that is tried to the next
STEP_FLOPS = 6 * 784 / 200e-6  # for each hidden unit and example: a step takes 200 microseconds


class OutOfTime(Exception):
    """No further run is to begin."""


class _Nobody:
    def progress(self, progress):
        pass

    def evaluated(self, evaluation):
        pass

    def warned(self, words):
        print(words, file=sys.stderr, flush=True)


def run(
    config, rule, rate, replicas, staleness, warmstart, ramp, epochs, batch, units, rise, fall, seed
) -> tuple[float, float]:
    """Train on a simulated cluster: the accuracy at the end (0 if training met a NaN), the mean staleness.

    `rise`, `fall`: shares of all updates over which the rate goes up to the rule's, and down to 0 at the end.
    """
    together = replicas if staleness == "synchronous" else 1
    changes = [f"seed={seed}", f"data.batch={together * batch}", NETWORK.format(units=units)]
    experiment = Experiment(load(config, changes))
    updates = epochs * experiment.training_examples // (together * batch)
    schedule = Trapezoid(updates, max(int(rise * updates), 1), max(int(fall * updates), 1))
    if together > 1:
        rule = RULES[rule](rate=rate)
        outcome = serial.train(experiment, rule, Stop(epochs=epochs), Evaluate(), _Nobody(), schedule=schedule)
        return (0.0, 0.0) if outcome.failed else (outcome.evaluation.accuracy, 0.0)
    # The coordinator evaluates on a rank of its own, in no time: else its shard would serve nobody meanwhile.
    roles = Roles(coordinator=0, shards=[1], replicas=list(range(2, replicas + 2)))
    cluster = Cluster(
        replicas + 2,
        flops=STEP_FLOPS * units * batch,
        latency=1e-7,
        bandwidth=1e14,
        memory_bandwidth=1e15,
        jitter=0.2,
        speeds={0: 1e6},
        seed=seed,
        check_buffers=False,
    )
    # No local step: a replica does not know by what its gradient will be divided.
    settings = Downpour(warmstart=warmstart, ramp=ramp, overlap=False, local_rate=0)
    server = Server(staleness=STALENESS[staleness], schedule=schedule)
    outcomes = cluster.run(
        lambda endpoint: downpour.train(
            endpoint,
            roles,
            experiment,
            RULES[rule](rate=rate),
            settings,
            Stop(epochs=epochs),
            Evaluate(),
            _Nobody(),
            1e6,
            server,
        )
    )
    last = outcomes[0].evaluation
    return (0.0, 0.0) if outcomes[0].failed else (last.accuracy, last.staleness[0])


class Runs:
    """Runs of one configuration by their settings, kept in a file if there is one, so that none is done twice."""

    def __init__(self, config: str, path: str | None, seconds: float):
        self._config = config
        self._path = path
        self._end = time.monotonic() + seconds
        self._done = {}
        if path and Path(path).exists():
            for line in Path(path).read_text().splitlines():
                settings, result = json.loads(line)
                self._done[json.dumps(settings, sort_keys=True)] = result

    def __call__(self, **settings) -> tuple[float, float]:
        """The result of `run`. Raises OutOfTime if it is not known and time is over."""
        if settings["replicas"] == 1:  # nobody to wait for, and never staler than 1
            settings |= {"staleness": "as it is", "warmstart": 0, "ramp": 0}
        key = json.dumps(settings, sort_keys=True)
        if key not in self._done:
            began = time.monotonic()
            if began >= self._end:
                raise OutOfTime
            self._done[key] = run(self._config, **settings)
            print(f"{key}: {self._done[key]} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
            if self._path:
                with open(self._path, "a") as file:
                    file.write(json.dumps([settings, self._done[key]]) + "\n")
        return self._done[key]


def best(accuracy: Callable[[float], float], rate: float) -> float:
    """The rate, up or down from `rate` by factors, at which `accuracy` stops rising."""
    for way in (FACTOR, 1 / FACTOR):
        while accuracy(rate * way) > accuracy(rate):
            rate *= way
    return rate


def row(runs: Runs, name: str, arguments: argparse.Namespace) -> list[dict]:
    """One variant for all numbers of replicas; the search for each rate begins at the one before."""
    rule, warm, staleness = VARIANTS[name]
    undivided, cells = FIRST_RATES[rule], []
    for replicas in arguments.replicas:
        settings = {
            "rule": rule,
            "replicas": replicas,
            "staleness": staleness,
            "warmstart": arguments.warmstart * arguments.epochs if warm else 0,
            "ramp": arguments.ramp * arguments.epochs if warm else 0,
            "epochs": arguments.epochs,
            "batch": arguments.batch,
            "units": arguments.units,
            "rise": arguments.rise,
            "fall": arguments.fall,
        }
        changes = {"epochs": arguments.search_epochs, "warmstart": 0, "ramp": 0, "seed": arguments.rate_seed}
        if staleness != "synchronous":
            changes["staleness"] = "scaled"
        if arguments.rate is None:
            undivided = best(lambda rate, tried=settings | changes: runs(rate=rate, **tried)[0], undivided)
        else:
            undivided = arguments.rate
        rate = undivided / replicas if staleness == "as it is" else undivided
        results = [runs(rate=rate, seed=seed, **settings) for seed in arguments.seeds]
        cell = {
            "variant": name,
            "replicas": replicas,
            "rate": rate,
            "accuracy": statistics.mean(accuracy for accuracy, _ in results),
            "accuracies": [accuracy for accuracy, _ in results],
            "staleness": statistics.mean(stale for _, stale in results),
        }
        cells.append(cell)
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--search-epochs", type=int, default=2, help="of the runs that search for rates")
    parser.add_argument("--batch", type=int, default=8, help="examples in a minibatch of one replica")
    parser.add_argument("--units", type=int, default=64, help="of the hidden layer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rate", type=float, help="for all cells, where it is not divided: nothing is searched")
    parser.add_argument("--rate-seed", type=int, default=0, help="rates are searched with this one")
    parser.add_argument("--warmstart", type=int, default=5, help="steps of replica 0 alone, for each epoch")
    parser.add_argument("--ramp", type=int, default=10, help="further steps until all train, for each epoch")
    parser.add_argument("--rise", type=float, default=0.1, help="share of all updates over which the rate goes up")
    parser.add_argument("--fall", type=float, default=0.2, help="share over which it goes down at the end")
    parser.add_argument("--config", metavar="FILE.toml", default=str(CONFIG), help="what says where the data are")
    parser.add_argument("--results", metavar="FILE", help="runs that have been done, one a line; new ones are added")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after so many")
    parser.add_argument("--plot", metavar="FILE.png")
    arguments = parser.parse_args()
    runs = Runs(arguments.config, arguments.results, arguments.seconds)
    try:
        results = [cell for name in arguments.variants for cell in row(runs, name, arguments)]
    except OutOfTime:
        print(f"not done in {arguments.seconds:g} s; with --results, call again to go on", file=sys.stderr)
        return 75  # EX_TEMPFAIL
    table("held-out accuracy (%)", results, arguments.replicas, lambda cell: f"{100 * cell['accuracy']:.1f}")
    table("rate", results, arguments.replicas, lambda cell: f"{cell['rate']:.2g}")
    table("mean staleness", results, arguments.replicas, lambda cell: f"{cell['staleness']:.1f}")
    if arguments.plot:
        plot(results, arguments.plot)
    print(json.dumps({"bench": "convergence", **vars(arguments), "results": results}))
    return 0


def table(what: str, results: list[dict], replicas: list[int], shown: Callable[[dict], str]) -> None:
    print(f"| {what}, by replicas | " + " | ".join(f"{count}" for count in replicas) + " |")
    print("|---" * (len(replicas) + 1) + "|")
    for name in dict.fromkeys(cell["variant"] for cell in results):
        print(f"| {name} | " + " | ".join(shown(cell) for cell in results if cell["variant"] == name) + " |")
    print()


def plot(results: list[dict], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    styles = {"fixed rate": ("#0072B2", "o"), "Adagrad": ("#E69F00", "s"), "Adagrad + warmstart": ("#009E73", "^")}
    for name in dict.fromkeys(row["variant"] for row in results):
        rows = [row for row in results if row["variant"] == name]
        rule, late = name.split(", ")
        colour, marker = styles[rule]
        axes.plot(
            [row["replicas"] for row in rows],
            [100 * row["accuracy"] for row in rows],
            color=colour,
            marker=marker,
            linestyle={"scaled": "--", "synchronous": ":"}.get(late, "-"),
            label=name,
        )
    axes.set(xscale="log", xlabel="replicas", ylabel="held-out accuracy after the same examples (%)")
    axes.set_xticks([row["replicas"] for row in rows], [str(row["replicas"]) for row in rows])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
