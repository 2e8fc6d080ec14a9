"""How many replicas does Downpour stand? Real gradients on Fashion-MNIST, in the simulator.

    python bench/convergence.py [--replicas 1 4 16 64 256] [--epochs 3] [--seeds 0 1 2] [--plot FILE.png]

Every run sees the same number of examples, `--epochs` times the training set, whatever the number of replicas. A
replica takes about a millisecond of virtual time for a step (lognormal noise), the network a few microseconds: the
staleness comes from the number of replicas, not from slow links. Prints a table of accuracies on the held-out
images, then one JSON line.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from distbelief.algorithms import downpour
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.sim import Cluster
from distbelief.config import load
from distbelief.experiment import Experiment
from distbelief.launch.roles import assign
from distbelief.optim import Adagrad, FixedRate
from distbelief.server import Ignored, Scaled, Server

CONFIG = Path(__file__).parent.parent / "examples" / "fashion_mnist.toml"
RULES = {"fixed rate": (FixedRate(rate=0.1), 0), "Adagrad": (Adagrad(rate=0.02), 0)}
STALENESS = {"as it is": Ignored(), "scaled": Scaled()}


class _Nobody:
    def progress(self, progress):
        pass

    def evaluated(self, evaluation):
        pass

    def warned(self, words):
        print(words, file=sys.stderr, flush=True)


def variants(warmstart: int) -> dict[str, tuple]:
    """name -> (rule, steps of warmstart, what is done about staleness)."""
    rows = [*((name, rule, 0) for name, (rule, _) in RULES.items())]
    rows.append(("Adagrad + warmstart", RULES["Adagrad"][0], warmstart))
    return {
        f"{name}, {late}": (rule, steps, staleness)
        for name, rule, steps in rows
        for late, staleness in STALENESS.items()
    }


def run(experiment: Experiment, replicas: int, rule, warmstart: int, staleness, epochs: int, seed: int):
    """Train `replicas` on a simulated cluster; the last evaluation (None if training met a NaN)."""
    roles = assign(replicas + 1, 1)
    cluster = Cluster(
        replicas + 1,
        flops=5e10,
        latency=1e-7,
        bandwidth=1e14,
        memory_bandwidth=1e15,
        jitter=0.2,
        seed=seed,
        check_buffers=False,
    )
    outcomes = cluster.run(
        lambda endpoint: downpour.train(
            endpoint,
            roles,
            experiment,
            rule,
            Downpour(warmstart=warmstart if replicas > 1 else 0, overlap=False),
            Stop(epochs=epochs),
            Evaluate(),
            _Nobody(),
            1e6,
            Server(staleness=staleness),
        )
    )
    return None if outcomes[0].failed else outcomes[0].evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--warmstart", type=int, default=300)
    parser.add_argument("--plot", metavar="FILE.png")
    parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[])
    arguments = parser.parse_args()
    results = []
    for name, (rule, warmstart, staleness) in variants(arguments.warmstart).items():
        for replicas in arguments.replicas:
            accuracies, stale = [], []
            began = time.monotonic()
            for seed in arguments.seeds:
                experiment = Experiment(load(CONFIG, [f"seed={seed}", *arguments.settings]))
                last = run(experiment, replicas, rule, warmstart, staleness, arguments.epochs, seed)
                accuracies.append(last.accuracy if last else 0.0)
                stale.append(last.staleness[0] if last else float("nan"))
            results.append(
                {
                    "variant": name,
                    "replicas": replicas,
                    "accuracy": statistics.mean(accuracies),
                    "accuracies": accuracies,
                    "staleness": statistics.mean(stale),
                }
            )
            print(
                f"{name:32} {replicas:4} replicas  accuracy {statistics.mean(accuracies):.4f}  "
                f"staleness {statistics.mean(stale):6.1f}  ({time.monotonic() - began:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
    table(results, arguments.replicas)
    if arguments.plot:
        plot(results, arguments.plot)
    print(
        json.dumps(
            {
                "bench": "convergence",
                "epochs": arguments.epochs,
                "seeds": arguments.seeds,
                "warmstart": arguments.warmstart,
                "results": results,
            }
        )
    )


def table(results: list[dict], replicas: list[int]) -> None:
    print("| | " + " | ".join(f"{count}" for count in replicas) + " |")
    print("|---" * (len(replicas) + 1) + "|")
    for name in dict.fromkeys(row["variant"] for row in results):
        cells = [f"{100 * row['accuracy']:.1f}" for row in results if row["variant"] == name]
        print(f"| {name} | " + " | ".join(cells) + " |")


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
            linestyle="--" if late == "scaled" else "-",
            label=name,
        )
    axes.set(xscale="log", xlabel="replicas", ylabel="held-out accuracy after the same examples (%)")
    axes.set_xticks([row["replicas"] for row in rows], [str(row["replicas"]) for row in rows])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
