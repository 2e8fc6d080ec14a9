"""Predicted speed-up of the paper's networks over many ranks (Dean et al. 2012, figure 3): one process, no MPI.

    python bench/prediction.py --plot docs/partition.png

The time of each layer is measured here, on cuts of as many rows as partitions have; the messages travel in the
simulator. One rank is what the others are compared with, as if it had memory for the whole network.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import machine
import numpy as np

from distbelief.config import load
from distbelief.nn import LOSSES, Layer, build
from distbelief.partition import predict

EXAMPLES = Path(__file__).parents[1] / "examples"
NETWORKS = {
    "speech": ("speech", "Speech: 42M"),
    "image80m": ("imagenet_80m", "Images: 80M"),
    "image330m": ("imagenet_330m", "Images: 330M"),
    "image1700m": ("imagenet", "Images: 1.7B"),
}
LATENCY = {1: 50e-6, 10: 20e-6, 100: 2e-6}  # seconds, by Gbit/s: TCP over Ethernet twice, a fabric of its own
MEMORY = 400e6  # bytes of tensors that a measurement may take


class Rates:
    """How long the rows of each layer take on this machine, per network and size of minibatch."""

    def __init__(self, layers: Sequence[Layer], repetitions: int):
        self._layers = layers
        self._repetitions = repetitions
        self._times: dict[tuple[int, int, int], float] = {}

    def seconds(self, cut: Layer, position: int, n: int) -> float:
        """As partition.prediction.Seconds: a third of forward and backward together."""
        rows = cut.shape[0]
        known = self._counts(position)
        times = [self._known(position, r, n) for r in known]
        if rows >= known[-1]:
            return times[-1] * rows / known[-1]
        return float(np.interp(rows, [0, *known], [0.0, *times]))

    def _known(self, *what: int) -> float:
        if what not in self._times:
            self._times[what] = self._time(*what)
        return self._times[what]

    def _counts(self, position: int) -> list[int]:
        """Rows to measure: powers of two, as many as memory allows."""
        layer = self._layers[position]
        row = 8 * sum(math.prod(shape[1:]) for shape in layer.shapes.values())
        most = min(layer.shape[0], max(1, int(MEMORY / max(row, 1))))
        return [1 << k for k in range(most.bit_length())]

    def _time(self, position: int, rows: int, n: int) -> float:
        layer = self._layers[position]
        start = (layer.shape[0] - rows) // 2
        cut = layer.cut(start, start + rows)
        random = np.random.default_rng(0)
        x, y, dy = (
            random.uniform(-1, 1, (*shape, n)).astype(np.float32) for shape in (cut.below, cut.shape, cut.shape)
        )
        dx = np.empty((0, *cut.below[1:], n) if position == 0 else (*cut.below, n), np.float32)
        values = {name: np.full(shape, 1e-3, np.float32) for name, shape in cut.shapes.items()}
        gradient = {name: np.zeros(shape, np.float32) for name, shape in cut.shapes.items()}
        scratch = np.empty(cut.scratch(n), np.float32)
        found = []
        for _ in range(self._repetitions):
            # The time of the processor: others may be at work here.
            began = time.process_time()
            cut.forward(values, x, y, scratch)
            cut.backward(values, x, y, dy.copy(), gradient, dx, scratch)
            found.append(time.process_time() - began)
        return min(found) / 3


def predictions(net: str, partitions: Sequence[int], links: Sequence[int], batch: int | None, repetitions: int) -> dict:
    """Seconds of a step of one rank, and of so many partitions by Gbit/s of their links."""
    config = load(EXAMPLES / f"{NETWORKS[net][0]}.toml")
    layers = build(config.network.layers, config.network.inputs, config.network.loss)
    n = batch or config.data.batch
    rates = Rates(layers, repetitions)
    loss = LOSSES[config.network.loss]()

    def step(p: int, gbits: int) -> float:
        return predict(layers, p, n, rates.seconds, loss, latency=LATENCY[gbits], bandwidth=gbits * 1e9 / 8)

    one = step(1, links[0])
    seconds = {str(gbits): {str(p): step(p, gbits) for p in partitions} for gbits in links}
    gflops = 3e-9 * sum(layer.flops(n) for layer in layers) / one
    return {"batch": n, "one_s": one, "gflops": gflops, "seconds": seconds}


def table(found: dict, partitions: Sequence[int]) -> str:
    """Markdown: speed-ups, a line for each network and link."""
    heads = ["network", "link", *(f"P = {p}" for p in partitions)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for net, result in found.items():
        for gbits, seconds in result["seconds"].items():
            cells = " | ".join(f"{result['one_s'] / seconds[str(p)]:.1f}" for p in partitions)
            lines.append(f"| {NETWORKS[net][1]} | {gbits} Gbit/s | {cells} |")
    return "\n".join(lines)


def plot(found: dict, path: str) -> None:
    """Speed-up over partitions, as figure 3 of the paper has it, with the two numbers that its text gives."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(LATENCY), figsize=(14, 4.5), sharey=True)
    for axis, gbits in zip(axes, LATENCY, strict=True):
        for net, result in found.items():
            seconds = result["seconds"].get(str(gbits), {})
            ps = [1, *map(int, seconds)]
            axis.plot(ps, [1.0, *(result["one_s"] / s for s in seconds.values())], "o-", label=NETWORKS[net][1])
        axis.plot([8], [2.2], "kx", label="paper: speech, 8 machines: 2.2")
        axis.plot([81], [12], "k^", label="paper: 1.7B, 81 machines: more than 12")
        axis.set(title=f"{gbits} Gbit/s", xlabel="partitions", xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("speed-up over one rank")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Predicted speed-up of model parallelism, in the simulator.")
    parser.add_argument("--nets", nargs="+", choices=sorted(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--partitions", nargs="+", type=int, default=[2, 4, 8, 16, 32, 81, 128])
    parser.add_argument("--gbits", nargs="+", type=int, choices=sorted(LATENCY), default=list(LATENCY))
    parser.add_argument("--batch", type=int, help="examples in a minibatch (default: the example's)")
    parser.add_argument("--repetitions", type=int, default=5, help="of each measurement; the least counts")
    parser.add_argument("--plot", metavar="PNG", help="draw it")
    arguments = parser.parse_args()
    found = {}
    for net in arguments.nets:
        found[net] = predictions(net, arguments.partitions, arguments.gbits, arguments.batch, arguments.repetitions)
        print(table({net: found[net]}, arguments.partitions), flush=True)
    if arguments.plot:
        plot(found, arguments.plot)
    print(json.dumps({"bench": "prediction", "networks": found, "machine": machine.facts()}))


if __name__ == "__main__":
    main()
