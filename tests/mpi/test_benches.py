"""The measurements that run under mpirun: each runs and ends with its line of JSON; no test says how fast anything is.

bench/kernels.py, which takes no ranks, is tested with the kernels.
"""

import gzip
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from mpi import launcher
from mpi.refusals import require_refusal
from mpi.small_problem import idx

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]
BENCH = Path(__file__).parents[2] / "bench"
COLUMNS = {"way", "bytes", "p50_us", "p95_us", "p99_us", "gbps", "calls"}


def bench(name: str, *arguments: str, ranks: int) -> launcher.Completed:
    argv = [sys.executable, "-X", "faulthandler", str(BENCH / f"{name}.py"), *arguments]
    return launcher.run(argv, ranks=ranks, timeout=120)


def told(name: str, *arguments: str, ranks: int) -> tuple[dict, list[str]]:
    """The line of JSON, and the lines above it."""
    lines = bench(name, *arguments, ranks=ranks).require_success().stdout.splitlines()
    # MPICH's UCX has been seen to say something of its own behind ours.
    end = max(i for i, line in enumerate(lines) if line.startswith("{"))
    *table, last = lines[: end + 1]
    facts = json.loads(last)
    assert facts["bench"] == name
    machine = {"cpu", "cores", "load", "python", "numpy", "numpy_blas", "scipy", "scipy_blas", "threads", "mpi"}
    assert machine == set(facts["machine"])
    return facts, table


def require_numbers(facts: dict, *keys: str) -> None:
    for key in keys:
        assert isinstance(facts[key], float) and 0 <= facts[key] < math.inf, key


def require_table(facts: dict, table: list[str], ways: list[str], sizes: list[int]) -> None:
    """`results` has every way at every size, and so has the table, in the same order."""
    results = facts["results"]
    assert [(row["way"], row["bytes"]) for row in results] == [(way, size) for size in sizes for way in ways]
    for row in results:
        assert set(row) == COLUMNS
        assert 0 < row["p50_us"] <= row["p95_us"] <= row["p99_us"] < math.inf and row["calls"] > 0
        assert math.isclose(row["gbps"], row["bytes"] / row["p50_us"] / 1e3)
    lines = [line for line in table[1:] if line][: len(results)]
    for line, row in zip(lines, results, strict=True):
        assert line.startswith(row["way"]) and str(row["bytes"]) in line.split()


def test_transport():
    facts, table = told("transport", "--largest", "1000", "--repetitions", "2", ranks=2)
    assert facts["largest"] == 1000 and facts["repetitions"] == 2
    ways = ["memcpy", "raw get", "get", "raw ping", "ping", "raw send", "send"]
    require_table(facts, table, ways, [8, 64, 512, 1000])
    require_numbers(facts, "memcpy_gbps", "raw_get_gbps", "fetch_gbps", "fetch_ratio")
    largest = {row["way"]: row["gbps"] for row in facts["results"] if row["bytes"] == 1000}
    assert facts["fetch_gbps"] == largest["get"] and facts["raw_get_gbps"] == largest["raw get"]
    assert math.isclose(facts["fetch_ratio"], largest["get"] / largest["memcpy"])


@pytest.mark.parametrize(("shards", "wire"), [(1, "float32"), (2, "bfloat16")])
def test_server(shards, wire):
    arguments = ["--params", "5001", "--shards", str(shards), "--wire", wire, "--repetitions", "2", "--idle", "0.1"]
    facts, table = told("server", *arguments, ranks=shards + 1)
    assert (facts["params"], facts["shards"], facts["wire"]) == (5001, shards, wire)
    held = ["fetch as held"] if wire == "bfloat16" else []
    second = ["float32 fetch", "float32 push"] if wire == "bfloat16" else []
    ways = ["copy", "adagrad", "raw get", "fetch", *held, "raw send", "push", "push + adagrad", *second]
    require_table(facts, table, ways, [4096, 20004])
    times = ["fetch_ms", "push_ms", "send_ms", "kernel_ms", "copy_ms", "push_wait_ms", "raw_get_ms", "raw_send_ms"]
    require_numbers(facts, *times, "fetch_ratio", "push_ratio", "idle_cpu")
    for key in ("fetch_held_ms", "float32_fetch_ms", "float32_push_ms"):
        assert (facts[key] is None) == (wire == "float32")
    assert math.isclose(facts["fetch_ratio"], facts["copy_ms"] / facts["fetch_ms"])
    assert math.isclose(facts["push_ratio"], facts["push_ms"] / (facts["kernel_ms"] + facts["copy_ms"]))
    assert facts["idle_cpu"] < 200


@pytest.mark.parametrize("wire", ["float32", "bfloat16"])
def test_downpour(wire):
    arguments = ["--scale", "0.01", "--batch", "8", "--n-fetch", "2", "--n-push", "3", "--steps", "4", "--wire", wire]
    facts, table = told("downpour", "--net", "speech", *arguments, "--repetitions", "2", ranks=2)
    assert (facts["net"], facts["batch"], facts["n_fetch"], facts["n_push"]) == ("speech", 8, 2, 3)
    assert facts["steps"] == 6  # whole periods
    assert facts["parameters"] == 4 * 26 + 26 + 3 * (26 * 26 + 26) + 26 * 82 + 82
    require_numbers(facts, "examples_per_s", "alone_examples_per_s", "efficiency", "fetching_ms", "pushing_ms")
    assert facts["fetching_ms"] > 0 and facts["pushing_ms"] > 0
    assert math.isclose(facts["efficiency"], facts["examples_per_s"] / facts["alone_examples_per_s"])
    assert len(table) == 2 + 2


def test_idle():
    facts, _ = told("idle", "--seconds", "0.3", "--repetitions", "2", ranks=3)
    require_numbers(facts, "coordinator_cpu", "shard_cpu")
    # They sleep most of the time; and they look for messages now and then.
    assert 0 < facts["coordinator_cpu"] < 80 and 0 < facts["shard_cpu"] < 80


NETWORK = """
run.folder = "run"
data = { train = { inputs = "none", labels = "none" }, held_out = 1, batch = 3 }
rule = { kind = "adagrad", rate = 0.1 }
stop.epochs = 1
[network]
inputs = [24, 8, 2]
layers = [{ kind = "local", maps = 3, window = 5 }, { kind = "normalise", window = 3 }, { kind = "dense", outputs = 9 }]
"""


def test_partition(tmp_path):
    (tmp_path / "network.toml").write_text(NETWORK)
    arguments = ["--config", str(tmp_path / "network.toml"), "--partitions", "3", "--steps", "2", "--repetitions", "1"]
    facts, _ = told("partition", *arguments, ranks=3)
    assert (facts["partitions"], facts["examples"]) == (3, 3)
    require_numbers(facts, "one_ms", "p_ms", "at_once_ms", "speedup", "bound", "of_bound")
    assert math.isclose(facts["of_bound"], facts["speedup"] / facts["bound"])
    assert facts["bytes_ratio"] == 1.0 and facts["bytes"] > 0


@pytest.mark.parametrize(("name", "ranks"), [("transport", 1), ("server", 3), ("downpour", 3), ("partition", 3)])
def test_another_number_of_ranks(name, ranks):
    require_refusal(bench(name, ranks=ranks), f"{name}.py was started with -n {ranks}, expected mpirun -n 2")


def test_bad_arguments():
    completed = bench("server", "--wire", "float8", ranks=2)
    assert completed.returncode == 2 and completed.stdout == ""
    assert completed.stderr.count("error: argument --wire: invalid choice: 'float8'") == 1


def test_stragglers():
    arguments = [
        "--scenario",
        "straggler",
        "--replicas",
        "2",
        "--examples",
        "1200",
        "--slow",
        "3",
        "--evaluations",
        "1",
    ]
    facts, table = told("sandblaster", *arguments, ranks=3)
    assert facts["real_processes"] is True
    require_numbers(facts, "ratio_to_ideal", "ratio_small_portions", "ratio_without_backups")
    assert [line[:16].strip() for line in table[-3:]] == ["backups", "no backups", "one portion each"]


def test_direction():
    arguments = ["--scenario", "direction", "--shards", "2", "--size", "20001", "--history", "3"]
    facts, _ = told("sandblaster", *arguments, ranks=3)
    assert facts["round_trips"] == 2 and facts["measured"] >= 10
    assert facts["vectors_moved"] == 2 * 3 + 7 + 8 + 2 + 3  # as in tests/optim/test_bench_direction.py
    require_numbers(facts, "bandwidth_ratio", "wall_ms", "coordinator_ms", "coordinator_cpu")


def test_parity(tmp_path):
    """On pictures of noise with something in them, as many numbers as Fashion-MNIST's."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 400).astype(np.uint8)
    images = random.integers(0, 256, (400, 28, 28)).astype(np.uint8)
    images[np.arange(400), labels] = 255
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        (tmp_path / f"train-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    facts, _ = told("parity", "--data", str(tmp_path), "--portion", "50", "--shards", "2", "--penalty", "1", ranks=2)
    assert facts["examples"] == 399 and facts["ranks"] == 2
    assert abs(facts["loss_difference"]) < 1e-6 and abs(facts["own_loss_difference"]) < 1e-12
    assert facts["evaluations"] <= 1.5 * facts["scipy_evaluations"]
