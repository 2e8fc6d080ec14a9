"""Rivals that take turns, so that all of them see the same moods of the machine; and what the machine gives at most."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Call = Callable[[], object]


class Case(NamedTuple):
    """One kernel at one size, and what else does the same work."""

    kernel: str
    size: str
    unit: str
    """GFLOP/s or GB/s: what its speed is told in."""
    gflop: float
    """Arithmetic of one call: a multiplication and an addition for each weight and use of it."""
    gigabytes: float
    """What one call moves at the least: each array once for reading it and once for writing it."""
    ours: Call
    numpy: Call
    memcpy: tuple[float, Call] | None = None
    """A copy of one vector and the GB it moves, where memory is the limit."""
    c: Call | None = None
    """The same loop in plain C, compiled with the same flags."""
    torch: Callable[[], Call] | None = None
    """Makes the call that does the same in PyTorch, once the results are found to agree."""
    apart: Call | None = None
    """The same by kernels of ours one after the other."""

    @property
    def work(self) -> float:
        return self.gflop if self.unit == "GFLOP/s" else self.gigabytes


class Roofline(NamedTuple):
    """The best that this machine's one core did in this run (Williams et al. 2009)."""

    gemm: float
    """GFLOP/s of a float32 product of 1024 x 1024 matrices, by NumPy's BLAS."""
    memory: float
    """GB/s of a copy of 128 MB, read once and written once."""

    def share(self, case: Case, seconds: float) -> float:
        """Of a call's time, what its arithmetic or its memory traffic needs at the least, whichever is more.

        Beyond 1 where all stays in the cache.
        """
        return max(case.gflop / self.gemm, case.gigabytes / self.memory) / seconds


def roofline(repetitions: int) -> Roofline:
    a, b = (np.random.default_rng(seed).standard_normal((1024, 1024), np.float32) for seed in range(2))
    product, vector = np.empty_like(a), np.ones(32_000_000, np.float32)
    copy = np.zeros_like(vector)
    gemm = min(seconds_of(lambda: np.matmul(a, b, out=product), 1) for _ in range(repetitions))
    memory = min(seconds_of(lambda: np.copyto(copy, vector), 1) for _ in range(repetitions))
    return Roofline(2e-9 * 1024**3 / gemm, 2e-9 * vector.nbytes / memory)


def seconds_of(call: Call, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def medians(rivals: Mapping[str, Call], repetitions: int, least: float) -> dict[str, float]:
    """Seconds of one call, for each rival: medians of `repetitions` turns, each of about `least` seconds."""
    calls = {}
    for name, call in rivals.items():
        once = min(seconds_of(call, 1) for _ in range(3 if least else 1))
        calls[name] = max(1, round(least / max(once, 1e-7)))
    turns = {name: [] for name in rivals}
    for _ in range(repetitions):
        for name, call in rivals.items():
            turns[name].append(seconds_of(call, calls[name]))
    return {name: statistics.median(times) for name, times in turns.items()}


def measure(case: Case, roof: Roofline, repetitions: int, least: float, with_torch: bool = False) -> dict:
    """One row: speeds in the case's unit, their ratios, our share of the roofline."""
    rivals, work = {"distbelief": case.ours, "numpy": case.numpy}, dict.fromkeys(("distbelief", "numpy"), case.work)
    if case.memcpy:
        work["memcpy"], rivals["memcpy"] = case.memcpy
    if case.apart:
        work["apart"], rivals["apart"] = case.work, case.apart
    if case.c:
        work["c"], rivals["c"] = case.work, case.c
    if with_torch and case.torch:
        work["torch"], rivals["torch"] = case.work, case.torch()
    seconds = medians(rivals, repetitions, least)
    speed = {name: work[name] / seconds[name] for name in rivals}
    ratios = {f"of_{name}": speed["distbelief"] / speed[name] for name in rivals if name != "distbelief"}
    share = {"of_roofline": roof.share(case, seconds["distbelief"])}
    return {"kernel": case.kernel, "size": case.size, "unit": case.unit} | speed | ratios | share
