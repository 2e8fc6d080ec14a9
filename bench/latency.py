"""Tables of latencies, like those of the OSU benchmarks: one line for each way to move so many bytes."""

import time
from collections.abc import Callable, Iterator

import numpy as np

HEADINGS = f"{'':<16} {'bytes':>11} {'p50 us':>11} {'p95 us':>11} {'p99 us':>11} {'GB/s':>8}"


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def sizes(smallest: int, largest: int, factor: int) -> Iterator[int]:
    """`smallest`, then `factor` times as many each time, and `largest` for the last."""
    size = smallest
    while size < largest:
        yield size
        size *= factor
    yield largest


def summary(way: str, nbytes: int, seconds: list[float]) -> dict:
    """What `seconds`, one number for each call that moved `nbytes`, come to. GB/s: at the median."""
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    microseconds = {"p50_us": p50 * 1e6, "p95_us": p95 * 1e6, "p99_us": p99 * 1e6}
    return {"way": way, "bytes": nbytes} | microseconds | {"gbps": nbytes / p50 / 1e9, "calls": len(seconds)}


def line(row: dict) -> str:
    return (
        f"{row['way']:<16} {row['bytes']:>11} {row['p50_us']:>11.2f} {row['p95_us']:>11.2f} {row['p99_us']:>11.2f} "
        f"{row['gbps']:>8.2f}"
    )
