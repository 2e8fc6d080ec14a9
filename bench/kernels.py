"""The compiled kernels against NumPy in the same run, and against what the machine gives.

    python bench/kernels.py [--quick] [--only SUBJECT [--against torch]]

Subjects: dense, accrue, update, batch; and those that PyTorch has too: local, convolution, pooling, normalisation,
losses, dense-bfloat16.

A kernel and its rivals take turns, so that all of them see the same moods of the machine; figures are medians.
GFLOP/s count a multiplication and an addition for each weight and example. GB/s count each vector once for reading
it and once for writing it, whatever a NumPy expression moves besides for its temporaries; memcpy (np.copyto) likewise.
An update may pass memcpy: it writes in place, where a copy may read the lines first that it is to overwrite.
Apart: two kernels of ours one after the other, where one does the work of both.
C: the loop of adagrad.c, compiled here with the kernels' flags, where there is a compiler.
Of roofline: the share of the time that BLAS's best rate and memcpy's, measured at the beginning, would allow. That
rate is float32's, which products of bfloat16 may pass.

`--against torch`: PyTorch takes turns with us, on one thread; its results must agree with ours. For local and
convolution that is a race of forward and backward together, beside the table; for the others it is a column. The last
line is JSON, with the facts of the machine; after such a race with its `ours_ms`, `reference_ms`, `ratio` and `gflops`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator

import machine  # before NumPy: one BLAS thread
import numpy as np
from accruals import cases as accrual_cases
from dense16 import cases as bfloat16_cases
from dense16 import products as products16
from filters import against_torch
from filters import cases as filter_cases
from losses import cases as loss_cases
from plain_c import adagrad as plain_adagrad
from stages import normalisation, pooling
from timing import Case, measure, roofline

from distbelief.kernels import (
    ACTIVATIONS,
    accrue,
    adagrad,
    dense_backward,
    dense_forward,
    gather_columns,
    sgd,
)
from distbelief.nn.arena import aligned
from distbelief.processor import prepare

RATE = 1e-6
RELU = ACTIVATIONS["relu"]


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

    gigabytes = 1e-9 * (w.nbytes + b.nbytes + x.nbytes + y.nbytes)
    yield Case("dense_forward", size, "GFLOP/s", gflop, gigabytes, lambda: dense_forward(w, b, x, RELU, y), forward)

    forward()  # backward needs a y
    dy, db, dx = numbers(outputs, n), np.empty_like(b), np.empty_like(x)
    dw = aligned(w.size, w.dtype).reshape(w.shape)  # on a line of the cache, as in a network

    def backward():
        np.multiply(dy, y > 0, out=dy)
        np.matmul(dy, x.T, out=dw)
        np.sum(dy, axis=1, out=db)
        np.matmul(w.T, dy, out=dx)

    def ours():
        dense_backward(w, x, y, RELU, dy, dw, db, dx)  # relu' twice is relu' once: dy may be overwritten again

    gigabytes = 1e-9 * sum(array.nbytes for array in (w, x, y, dy, dy, dw, db, dx))
    yield Case("dense_backward", size, "GFLOP/s", 2 * gflop, gigabytes, ours, backward)


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

    c = plain_adagrad(parameters, gradient, other, RATE)
    cases = [
        ("sgd", 3, lambda: sgd(parameters, gradient, RATE), numpy_sgd, None),
        ("adagrad", 5, lambda: adagrad(parameters, gradient, other, RATE), numpy_adagrad, c),
        ("accrue", 5, lambda: accrue(parameters, other, gradient, RATE), numpy_accrue, None),
    ]
    for kernel, vectors, ours, numpy, c in cases:
        yield Case(kernel, size, "GB/s", 0, vectors * gigabytes, ours, numpy, (2 * gigabytes, memcpy), c)


def batches(examples: int, features: int, n: int) -> Iterator[Case]:
    """Random rows of a file of bytes, as images have them."""
    random = np.random.default_rng(0)
    source = random.integers(0, 256, (examples, features), np.uint8)
    rows, out = random.integers(0, examples, n), np.empty((features, n), np.float32)
    scale = np.float32(1 / 255)

    def ours():
        gather_columns(source, rows, 1 / 255, 0.0, out)

    def numpy_gather():
        np.multiply(source[rows].T, scale, out=out)

    gigabytes = 1e-9 * n * features * (source.itemsize + out.itemsize)
    size = f"{features} features, batch {n}"
    yield Case("gather_columns", size, "GB/s", 0, gigabytes, ours, numpy_gather)


# Subjects by name: layers of the Fashion-MNIST example and of the speech network (Dean et al. 2012, section 5), and
# smaller ones; a shard's share that stays in the cache and one that does not, batches of the example, stages of the
# image network.
def subject_dense(quick: bool) -> Iterator[Case]:
    yield from dense(256, 784, 32)
    if not quick:
        yield from dense(64, 64, 8)
        yield from dense(512, 512, 128)
        yield from dense(2560, 2560, 32)
        yield from dense(2560, 2560, 128)
        yield from dense(8192, 2560, 128)


def subject_update(quick: bool) -> Iterator[Case]:
    for count in [10_000] if quick else [20_000, 16_000_000]:
        yield from updates(count)


def subject_batch(quick: bool) -> Iterator[Case]:
    for examples, n in [(1_000, 32)] if quick else [(60_000, 32), (60_000, 250)]:
        yield from batches(examples, 784, n)


SUBJECTS: dict[str, Callable[[bool], Iterator[Case]]] = {
    "dense": subject_dense,
    "accrue": accrual_cases,
    "update": subject_update,
    "batch": subject_batch,
    "local": lambda quick: filter_cases(tied=False, quick=quick),
    "convolution": lambda quick: filter_cases(tied=True, quick=quick),
    "pooling": pooling,
    "normalisation": normalisation,
    "losses": loss_cases,
    "dense-bfloat16": bfloat16_cases,
}
FILTERS = ("local", "convolution")
IN_TORCH = (*FILTERS, "pooling", "normalisation", "losses", "dense-bfloat16")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of the compiled kernels beside NumPy's and PyTorch's.")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions: seconds, not minutes")
    parser.add_argument("--only", choices=SUBJECTS, help="one subject instead of all")
    parser.add_argument("--against", choices=["torch"], help="race PyTorch, too, which has not all subjects")
    told = parser.parse_args()
    if told.against and told.only not in IN_TORCH:
        sys.exit(f"kernels.py: --against torch goes with --only {', '.join(IN_TORCH[:-1])} or {IN_TORCH[-1]}")
    if told.against and not torch_is_installed():
        sys.exit(f"kernels.py: --against torch: PyTorch is not installed for {sys.executable}")
    return told


def torch_is_installed() -> bool:
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


# Keys of a result, their headings and widths.
COLUMNS = [
    ("distbelief", "distbelief", 10),
    ("numpy", "NumPy", 7),
    ("memcpy", "memcpy", 7),
    ("apart", "apart", 7),
    ("c", "C", 7),
    ("torch", "PyTorch", 7),
    ("of_numpy", "of NumPy", 9),
    ("of_memcpy", "of memcpy", 10),
    ("of_apart", "of apart", 9),
    ("of_c", "of C", 5),
    ("of_torch", "of PyTorch", 11),
    ("of_roofline", "of roofline", 12),
]


def line(kernel: str, size: str, unit: str, cells: list[str]) -> str:
    widths = [width for *_, width in COLUMNS]
    return f"{kernel:<25} {size:<29} {unit:<8} " + " ".join(
        f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)
    )


def row(result: dict) -> str:
    cells = [f"{result[name]:.2f}" if name in result else "" for name, *_ in COLUMNS]
    return line(result["kernel"], result["size"], result["unit"], cells)


def main() -> None:
    told = arguments()
    prepare()  # as a run begins
    repetitions, least = (3, 0.001) if told.quick else (15, 0.02)
    roof = roofline(repetitions)
    print(f"roofline: {roof.gemm:.1f} GFLOP/s (float32 product of NumPy's BLAS), {roof.memory:.1f} GB/s (memcpy)")
    print(line("kernel", "size", "", [heading for _, heading, _ in COLUMNS]))
    results = []
    for name in [told.only] if told.only else SUBJECTS:
        for case in SUBJECTS[name](told.quick):
            results.append(measure(case, roof, repetitions, least, bool(told.against)))
            print(row(results[-1]), flush=True)

    summary = {"bench": "kernels", "quick": told.quick, "repetitions": repetitions, "roofline": roof._asdict()}
    summary |= {"against": told.against, "bfloat16": products16()}
    if told.against and told.only in FILTERS:
        race = against_torch(told.only == "convolution", told.quick, repetitions, least)
        print(
            f"forward and backward of {race['size']}: {race['ours_ms']:.2f} ms, {race['gflops']:.1f} GFLOP/s; "
            f"PyTorch {race['reference_ms']:.2f} ms: {race['ratio']:.1f} times"
        )
        summary |= race
    print(json.dumps(summary | {"machine": machine.facts(), "results": results}))


if __name__ == "__main__":
    main()
