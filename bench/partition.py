"""A training step of a network cut over the ranks of the job, against the same on one of them.

    mpirun -n 2 python bench/partition.py --net image80m --partitions 2

Both take turns in one run. The networks are those of examples/.

one_ms: of the whole network on one rank while the others sleep; a mean over the ranks, each of which has its turn, as
cores need not be equally fast and all of them take part in p_ms.
speedup: the median over the rounds of turns of the ratio within each, as cores of a virtual machine may slow down by a
third for seconds.
bound: likewise, against the slowest rank when all compute the whole network, each for itself, at once (at_once_ms).
A cut that costs nothing would reach it.
bytes_ratio: what crossed the boundaries between partitions, up and down, against the least possible: each number that
another partition needs sent to it once, its gradient back once.
"""

import argparse
import time
from pathlib import Path
from types import SimpleNamespace

import job
import numpy as np

from distbelief.comm.endpoint import Endpoint
from distbelief.config import load
from distbelief.nn import LOSSES, Arena, Network, build
from distbelief.partition import PartitionedNetwork, Peers, Plan
from distbelief.partition.peers import BACKWARD, FORWARD

EXAMPLES = Path(__file__).parents[1] / "examples"
NETWORKS = {"speech": "speech", "image80m": "imagenet_80m", "image330m": "imagenet_330m"}
TIMEOUT = 300.0
ALONE, TOLD = 50, 51  # tags


def measure(endpoint: Endpoint, arguments: argparse.Namespace) -> dict | None:
    config = load(arguments.config or EXAMPLES / f"{NETWORKS[arguments.net]}.toml")
    layers = build(config.network.layers, config.network.inputs, config.network.loss)
    n = arguments.batch or config.data.batch
    plan = Plan(layers, endpoint.size)
    peers = Peers(endpoint, range(endpoint.size), TIMEOUT)
    partitioned = _Step(PartitionedNetwork(peers, plan, n, np.float32, LOSSES[config.network.loss]()), n)
    whole = _Step(Network(layers, n, np.float32, LOSSES[config.network.loss]()), n)
    one, at_once, many = [], [], []
    for _ in range(arguments.repetitions + 1):  # the first warms up
        for rank in range(endpoint.size):
            if rank == endpoint.rank:
                one.append(whole.time(arguments.steps))
            _meet(endpoint, ALONE)
        at_once.append(whole.time(arguments.steps))
        _meet(endpoint, TOLD)
        peers.bytes_sent.clear()
        many.append(partitioned.time(arguments.steps))
        _meet(endpoint, TOLD)
    sent = sum(size for tag, size in peers.bytes_sent.items() if FORWARD <= tag < BACKWARD + len(layers))
    sent = int(peers.share(np.array([sent]), "the bytes sent").sum())
    everyone = peers.share(np.array([one, at_once, many])[:, 1:], "the times")
    peers.settle()
    if endpoint.rank != 0:
        return None
    one_t, at_once_t, many_t = everyone[:, 0].mean(axis=0), *everyone[:, 1:].max(axis=0)
    speedup, bound = np.median(one_t / many_t), np.median(len(peers) * one_t / at_once_t)
    one_s, at_once_s, many_s = map(np.median, (one_t, at_once_t, many_t))
    least = 2 * _least(plan) * n * 4 * arguments.steps
    what = f"{arguments.config or arguments.net}, minibatches of {n}"
    print(f"{what}: {one_s * 1e3:.1f} ms on one rank, {many_s * 1e3:.1f} ms on {len(peers)}")
    print(f"{speedup:.2f} times as fast; {bound:.2f} times if the cut cost nothing")
    return {
        "examples": n,
        "one_ms": float(one_s * 1e3),
        "p_ms": float(many_s * 1e3),
        "at_once_ms": float(at_once_s * 1e3),
        "speedup": float(speedup),
        "bound": float(bound),
        "of_bound": float(speedup / bound),
        "bytes_ratio": sent / least if least else 1.0,
        "bytes": sent // arguments.steps,
    }


class _Step:
    """A network with all it needs to compute gradients."""

    def __init__(self, network: Network | PartitionedNetwork, n: int):
        self._network = network
        self._parameters, self._gradient = Arena(network.layout), Arena(network.layout)
        network.initialise(self._parameters, seed=1)
        random = np.random.default_rng(1)
        x = random.uniform(-1, 1, (network.inputs, n)).astype(np.float32)
        self._batch = SimpleNamespace(x_in=x, labels=random.integers(0, network.classes, n), size=n)

    def time(self, steps: int) -> float:
        """Seconds of a gradient, a mean over so many."""
        began = time.perf_counter()
        for _ in range(steps):
            self._network.gradient(self._parameters, self._batch, self._gradient)
        return (time.perf_counter() - began) / steps


def _least(plan: Plan) -> int:
    """Numbers that have to cross on the way up for one example, counted row by row: without the plan's messages."""
    total = 0
    for number, above in enumerate(plan.layers[1:]):
        for own, band in zip(plan.bands[number], plan.bands[number + 1], strict=True):
            needed = {row for up in range(*band) for row in range(*above.region(up, up + 1))}
            total += len(needed - set(range(*own))) * plan.row_size(number)
    return total


def _meet(endpoint: Endpoint, tag: int) -> None:
    """All ranks wait for each other, asleep."""
    word = np.zeros(1, np.uint8)
    others = range(1, endpoint.size) if endpoint.rank == 0 else [0]
    sending = [endpoint.send(word, other, tag) for other in others]
    receiving = [endpoint.receive(np.zeros(1, np.uint8), other, tag) for other in others]
    endpoint.wait_all(sending + receiving, TIMEOUT, "the other ranks of the measurement")


def main() -> None:
    parser = argparse.ArgumentParser(description="A step of a network on P ranks against one rank.")
    parser.add_argument("--net", choices=sorted(NETWORKS), default="image80m")
    parser.add_argument("--config", metavar="CONFIG", help="instead of --net: the network of a configuration")
    parser.add_argument("--partitions", metavar="P", type=job.count, default=2, help="ranks: mpirun -n P")
    parser.add_argument("--batch", metavar="N", type=job.count, help="examples in a minibatch (default: the example's)")
    parser.add_argument("--steps", metavar="K", type=job.count, default=2, help="steps timed in each turn")
    parser.add_argument("--repetitions", metavar="N", type=job.count, default=15, help="rounds of turns")
    job.run("partition", parser, lambda arguments: arguments.partitions, measure)


if __name__ == "__main__":
    main()
