"""The compiled kernels against NumPy in the same run, and against what the memory gives.

    python bench/kernels.py [--quick]

A kernel and its rivals take turns, so that all of them see the same moods of the machine; figures are medians.
GFLOP/s count a multiplication and an addition for each weight and example. GB/s count each vector once for reading
it and once for writing it, whatever a NumPy expression moves besides for its temporaries; memcpy (np.copyto) likewise.
An update may pass memcpy: it writes in place, where a copy may read the lines first that it is to overwrite.
The last line is JSON, with the facts of the machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import machine  # before NumPy: one BLAS thread
import numpy as np

from distbelief.kernels import (
    ACTIVATIONS,
    accrue,
    adagrad,
    dense_backward,
    dense_forward,
    gather_columns,
    sgd,
)

RATE = 1e-6
RELU = ACTIVATIONS["relu"]


class Case(NamedTuple):
    """One kernel at one size, and what else does the same work."""

    kernel: str
    size: str
    work: float
    """What one call does, in `unit` times a second: GFLOP or GB."""
    unit: str
    ours: Callable[[], object]
    numpy: Callable[[], object]
    memcpy: tuple[float, Callable[[], object]] | None = None
    """A copy of one vector and the GB it moves, where memory is the limit."""


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def dense(outputs: int, inputs: int, n: int) -> Iterator[Case]:
    """A layer of relus; NumPy with preallocated outputs too, so that the comparison is of arithmetic."""
    w, b, x, y = numbers(outputs, inputs), numbers(outputs), numbers(inputs, n), np.empty((outputs, n), np.float32)
    size, gflop = f"{outputs} x {inputs}, batch {n}", 2e-9 * outputs * inputs * n

    def forward():
        np.matmul(w, x, out=y)
        np.add(y, b[:, None], out=y)
        np.maximum(y, 0, out=y)

    yield Case("dense_forward", size, gflop, "GFLOP/s", lambda: dense_forward(w, b, x, RELU, y), forward)

    forward()  # backward needs a y
    dy, dw, db, dx = numbers(outputs, n), np.empty_like(w), np.empty_like(b), np.empty_like(x)

    def backward():
        np.multiply(dy, y > 0, out=dy)
        np.matmul(dy, x.T, out=dw)
        np.sum(dy, axis=1, out=db)
        np.matmul(w.T, dy, out=dx)

    # relu' twice is relu' once, so that dy may be overwritten again and again.
    yield Case(
        "dense_backward", size, 2 * gflop, "GFLOP/s", lambda: dense_backward(w, x, y, RELU, dy, dw, db, dx), backward
    )


def updates(count: int) -> Iterator[Case]:
    """Updates of one float32 vector of `count` numbers, each reading and writing 3 or 5 vectors."""
    parameters, gradient, other = numbers(count), numbers(count), np.ones(count, np.float32)
    size, gigabytes = f"{count / 1e6:g} M parameters", 1e-9 * parameters.nbytes
    rate, copy = np.float32(RATE), np.empty_like(gradient)

    def memcpy():
        np.copyto(copy, gradient)

    def numpy_sgd():
        np.subtract(parameters, rate * gradient, out=parameters)

    def numpy_adagrad():
        np.add(other, gradient * gradient, out=other)
        np.subtract(parameters, rate * gradient / np.sqrt(other), out=parameters)

    def numpy_accrue():
        np.add(other, gradient, out=other)
        np.subtract(parameters, rate * gradient, out=parameters)
        return np.isfinite(gradient).all()

    cases = [
        ("sgd", 3, lambda: sgd(parameters, gradient, RATE), numpy_sgd),
        ("adagrad", 5, lambda: adagrad(parameters, gradient, other, RATE), numpy_adagrad),
        ("accrue", 5, lambda: accrue(parameters, other, gradient, RATE), numpy_accrue),
    ]
    for kernel, vectors, ours, numpy in cases:
        yield Case(kernel, size, vectors * gigabytes, "GB/s", ours, numpy, (2 * gigabytes, memcpy))


def batches(examples: int, features: int, n: int) -> Iterator[Case]:
    """Random rows of a file of bytes, as images have them."""
    random = np.random.default_rng(0)
    source = random.integers(0, 256, (examples, features), np.uint8)
    rows, out = random.integers(0, examples, n), np.empty((features, n), np.float32)
    scale = np.float32(1 / 255)

    def numpy_gather():
        np.multiply(source[rows].T, scale, out=out)

    gigabytes = 1e-9 * n * features * (source.itemsize + out.itemsize)
    yield Case(
        "gather_columns",
        f"{features} features, batch {n}",
        gigabytes,
        "GB/s",
        lambda: gather_columns(source, rows, 1 / 255, 0.0, out),
        numpy_gather,
    )


def seconds_of(call: Callable[[], object], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def measure(case: Case, repetitions: int, least: float) -> dict:
    """Medians of `repetitions` turns; in each, one rival after the other runs for about `least` seconds."""
    rivals = {"distbelief": (case.work, case.ours), "numpy": (case.work, case.numpy)}
    if case.memcpy:
        rivals["memcpy"] = case.memcpy
    calls = {}
    for name, (_, call) in rivals.items():
        once = min(seconds_of(call, 1) for _ in range(3))
        calls[name] = max(1, round(least / max(once, 1e-7)))
    turns = {name: [] for name in rivals}
    for _ in range(repetitions):
        for name, (_, call) in rivals.items():
            turns[name].append(seconds_of(call, calls[name]))
    speed = {name: work / statistics.median(turns[name]) for name, (work, _) in rivals.items()}
    ratios = {f"of_{name}": speed["distbelief"] / speed[name] for name in rivals if name != "distbelief"}
    return {"kernel": case.kernel, "size": case.size, "unit": case.unit} | speed | ratios


def cases(quick: bool) -> Iterator[Case]:
    """Layers of the Fashion-MNIST example and of the speech network (Dean et al. 2012, section 5); a shard's share."""
    yield from dense(256, 784, 32)
    if quick:
        yield from updates(10_000)
        yield from batches(1_000, 784, 32)
        return
    yield from dense(2560, 2560, 128)
    yield from dense(8192, 2560, 128)
    yield from updates(20_000)  # stays in the cache
    yield from updates(16_000_000)  # does not
    yield from batches(60_000, 784, 32)
    yield from batches(60_000, 784, 250)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the compiled kernels beside NumPy's.")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions: seconds, not a minute")
    quick = parser.parse_args().quick
    repetitions, least = (3, 0.001) if quick else (15, 0.02)

    columns = f"{'distbelief':>10} {'NumPy':>7} {'memcpy':>7} {'of NumPy':>9} {'of memcpy':>10}"
    print(f"{'kernel':<15} {'size':<25} {'':<8} {columns}")
    results = []
    for case in cases(quick):
        result = measure(case, repetitions, least)
        results.append(result)
        print(
            f"{case.kernel:<15} {case.size:<25} {case.unit:<8} {result['distbelief']:>10.2f} {result['numpy']:>7.2f} "
            + (f"{result['memcpy']:>7.2f}" if case.memcpy else " " * 7)
            + f" {result['of_numpy']:>9.2f}"
            + (f" {result['of_memcpy']:>10.2f}" if case.memcpy else ""),
            flush=True,
        )
    told = {"bench": "kernels", "quick": quick, "repetitions": repetitions}
    print(json.dumps(told | {"machine": machine.facts(), "results": results}))


if __name__ == "__main__":
    main()
