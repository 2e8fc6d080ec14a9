"""Predicted speed-up of the paper's networks over many ranks (Dean et al. 2012, figure 3): one process, no MPI.

    python bench/prediction.py --times times.jsonl --measure       # alone on the machine: about a minute
    python bench/prediction.py --times times.jsonl --plot docs/partition.png

The time of each layer is measured here, on cuts of as many rows as partitions have; the messages travel in the
simulator. One rank is what the others are compared with, as if it had memory for the whole network.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import machine
import numpy as np

from distbelief.config import load
from distbelief.nn import LOSSES, Layer, build
from distbelief.nn.interval import Interval
from distbelief.partition import predict
from distbelief.partition.plan import bands
from distbelief.partition.prediction import Seconds

EXAMPLES = Path(__file__).parents[1] / "examples"
NETWORKS = {
    "speech": ("speech", "Speech: 42M"),
    "image80m": ("imagenet_80m", "Images: 80M"),
    "image330m": ("imagenet_330m", "Images: 330M"),
    "image1700m": ("imagenet", "Images: 1.7B"),
}
MEMORY = 400e6  # bytes of tensors that a measurement may take


class Link(NamedTuple):
    words: str
    latency: float
    """Seconds."""
    bandwidth: float
    """Bytes per second."""


LINKS = {
    "1": Link("1 Gbit/s", 50e-6, 1e9 / 8),  # TCP over Ethernet, as in the paper's time
    "10": Link("10 Gbit/s", 20e-6, 10e9 / 8),
    "100": Link("100 Gbit/s", 2e-6, 100e9 / 8),  # a fabric of its own
    "free": Link("free", 0.0, math.inf),  # what the cut itself allows
}


class Times:
    """Seconds of forward and backward of some rows of a layer; kept in a file if there is one, to be measured once."""

    def __init__(self, path: str | None, repetitions: int):
        self._path = path
        self._repetitions = repetitions
        self._known: dict[tuple, float] = {}
        if path and Path(path).exists():
            for line in Path(path).read_text().splitlines():
                *key, seconds = json.loads(line)
                self._known[tuple(key)] = seconds

    def __call__(self, net: str, layer: Layer, rows: int, n: int, first: bool) -> float:
        """`first`: nobody needs the gradient by the input of the first layer."""
        key = net, layer.name, rows, n
        if key not in self._known:
            self._known[key] = _measure(layer, rows, n, first, self._repetitions)
            if self._path:
                with open(self._path, "a") as file:
                    file.write(json.dumps([*key, self._known[key]]) + "\n")
        return self._known[key]


def _measure(layer: Layer, rows: int, n: int, first: bool, repetitions: int) -> float:
    start = (layer.shape[0] - rows) // 2
    cut = layer.cut(start, start + rows)
    random = np.random.default_rng(0)
    x, y, dy = (random.uniform(-1, 1, (*shape, n)).astype(np.float32) for shape in (cut.below, cut.shape, cut.shape))
    dx = np.empty((0, *cut.below[1:], n) if first else (*cut.below, n), np.float32)
    values = {name: np.full(shape, 1e-3, np.float32) for name, shape in cut.shapes.items()}
    gradient = {name: np.zeros(shape, np.float32) for name, shape in cut.shapes.items()}
    scratch = np.empty(cut.scratch(n), np.float32)
    found = []
    for _ in range(repetitions):
        error = dy.copy()
        began = time.process_time()  # of the processor: others may be at work here
        cut.forward(values, x, y, scratch)
        cut.backward(values, x, y, error, gradient, dx, scratch)
        found.append(time.process_time() - began)
    return min(found)


def counts(layer: Layer) -> list[int]:
    """Rows to measure: powers of two, and as many as there are or as memory allows."""
    row = 8 * sum(math.prod(shape[1:]) for shape in layer.shapes.values())
    most = min(layer.shape[0], max(1, int(MEMORY / max(row, 1))))
    return sorted({1 << k for k in range(most.bit_length())} | {most})


def rates(net: str, layers: Sequence[Layer], n: int, times: Times) -> Seconds:
    """As partition.prediction.Seconds: a third of forward and backward, on a straight line between what is measured."""
    curves = []
    for position, layer in enumerate(layers):
        known = counts(layer)
        curves.append((known, [times(net, layer, rows, n, position == 0) / 3 for rows in known]))

    def seconds(cut: Layer, position: int, examples: int) -> float:
        assert examples == n, f"{examples} examples, measured with {n}"
        rows, (known, found) = cut.shape[0], curves[position]
        if rows >= known[-1]:
            return found[-1] * rows / known[-1]
        return float(np.interp(rows, [0, *known], [0.0, *found]))

    return seconds


def predictions(
    net: str, partitions: Sequence[int], links: Sequence[str], batch: int | None, times: Times, faster: float = 1.0
) -> dict:
    """Seconds of a step of one rank, and of so many partitions by their links; `faster`: than this machine's core."""
    config = load(EXAMPLES / f"{NETWORKS[net][0]}.toml")
    layers = build(config.network.layers, config.network.inputs, config.network.loss)
    n = batch or config.data.batch
    measured, loss = rates(net, layers, n, times), LOSSES[config.network.loss]()

    def seconds(cut: Layer, position: int, examples: int) -> float:
        return measured(cut, position, examples) / faster

    def step(p: int, link: Link) -> float:
        return predict(layers, p, n, seconds, loss, latency=link.latency, bandwidth=link.bandwidth)

    one = step(1, LINKS["free"])
    found = {link: {str(p): step(p, LINKS[link]) for p in partitions} for link in links}
    gflops = 3e-9 * sum(layer.flops(n) for layer in layers) / one
    return {"batch": n, "one_s": one, "gflops": gflops, "seconds": found}


def table(found: dict, partitions: Sequence[int]) -> str:
    """Markdown: speed-ups, a line for each network and link."""
    heads = ["network", "links", *(f"P = {p}" for p in partitions)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for net, result in found.items():
        for link, seconds in result["seconds"].items():
            cells = " | ".join(f"{result['one_s'] / seconds[str(p)]:.1f}" for p in partitions)
            lines.append(f"| {NETWORKS[net][1]} | {LINKS[link].words} | {cells} |")
    return "\n".join(lines)


def received(layers: Sequence[Layer], down: int, across: int) -> int:
    """Numbers that the busiest partition receives on the way up, for one example, if images are cut into blocks.

    `down` by `across` of them; down by 1 is what a Plan does. Windows and images are square, as the paper's are.
    """
    total = np.zeros((down, across), np.int64)
    for layer, above in pairwise(layers):
        if len(layer.shape) < 3:
            continue
        (height, width, maps), image = layer.shape, len(above.shape) == 3
        for i, j in np.ndindex(down, across):
            own = _part(height, down, i), _part(width, across, j)
            needed = Interval(0, height), Interval(0, width)
            if image:
                parts = _part(above.shape[0], down, i), _part(above.shape[1], across, j)
                needed = [Interval(*above.region(*part)) if part.size else Interval(0, 0) for part in parts]
            have = math.prod(mine.common(need).size for mine, need in zip(own, needed, strict=True))
            total[i, j] += (needed[0].size * needed[1].size - have) * maps
    return int(total.max())


def _part(size: int, parts: int, number: int) -> Interval:
    return bands(np.ones(size), parts)[number]


def traffic(nets: Sequence[str], partitions: Sequence[int]) -> str:
    """Markdown: what the busiest partition receives in a forward pass, cut into rows and into square blocks."""
    lines = ["| network | partitions | rows | blocks |", "|---" * 4 + "|"]
    for net in nets:
        config = load(EXAMPLES / f"{NETWORKS[net][0]}.toml")
        layers = build(config.network.layers, config.network.inputs, config.network.loss)
        for p in partitions:
            side = math.isqrt(p)
            if side * side == p > 1 and len(layers[0].shape) == 3:
                rows, blocks = (4e-6 * config.data.batch * received(layers, *cut) for cut in ((p, 1), (side, side)))
                lines.append(f"| {NETWORKS[net][1]} | {p} | {rows:.1f} MB | {blocks:.1f} MB |")
    return "\n".join(lines)


def plot(found: dict, links: Sequence[str], path: str) -> None:
    """Speed-up over partitions, as figure 3 of the paper has it, with the two numbers that its text gives."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = 1 if len(links) < 3 else 2
    columns = -(-len(links) // rows)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.4 * rows), layout="constrained", squeeze=False)
    colours = dict(zip(NETWORKS, ("#0072B2", "#E69F00", "#009E73", "#D55E00"), strict=True))
    for axis, link in zip(axes.flat, links, strict=False):
        for net, result in found.items():
            seconds = result["seconds"][link]
            ps, times = [1, *map(int, seconds)], [result["one_s"], *seconds.values()]
            label = NETWORKS[net][1]
            axis.plot(ps, [result["one_s"] / s for s in times], "o-", ms=4, color=colours[net], label=label)
        axis.plot([8], [2.2], "x", color=colours["speech"], ms=9, mew=2, label="paper: speech, 8 machines")
        axis.plot([81], [12], "^", color=colours["image1700m"], ms=9, label="paper: 1.7B, 81 machines (more than)")
        axis.set(title=f"links: {LINKS[link].words}", xlabel="partitions", ylabel="speed-up over one rank")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Predicted speed-up of model parallelism, in the simulator.")
    parser.add_argument("--nets", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--partitions", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 81, 128])
    parser.add_argument("--links", nargs="+", choices=list(LINKS), default=list(LINKS))
    parser.add_argument("--batch", type=int, help="examples in a minibatch (default: the example's)")
    parser.add_argument("--faster", type=float, default=1.0, help="how much faster a rank computes than this core")
    parser.add_argument("--repetitions", type=int, default=7, help="of each measurement; the least counts")
    parser.add_argument("--times", metavar="FILE", help="times that have been measured, one a line; new ones are added")
    parser.add_argument("--measure", action="store_true", help="measure what --times lacks, and predict nothing")
    parser.add_argument("--plot", metavar="PNG", help="draw it")
    arguments = parser.parse_args()
    times, found = Times(arguments.times, arguments.repetitions), {}
    partitions, links = ([], []) if arguments.measure else (arguments.partitions, arguments.links)
    for net in arguments.nets:
        found[net] = predictions(net, partitions, links, arguments.batch, times, arguments.faster)
        print(table({net: found[net]}, partitions), flush=True)
    print(traffic(arguments.nets, partitions))
    if arguments.plot and not arguments.measure:
        plot(found, links, arguments.plot)
    print(json.dumps({"bench": "prediction", "networks": found, "machine": machine.facts()}))


if __name__ == "__main__":
    main()
