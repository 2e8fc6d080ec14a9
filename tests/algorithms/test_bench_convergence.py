"""bench/convergence.py runs, goes on where it stopped, and tells what it should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "convergence.py"
CONFIG = """
[run]
folder = "run"

[data]
train = { generated = 400 }
held_out = 100

[network]
inputs = 784
layers = [{ kind = "dense", outputs = 10 }]
loss = "softmax"

[rule]
kind = "adagrad"
rate = 0.1

[stop]
epochs = 1
"""
VARIANTS = ["Adagrad, as it is", "Adagrad + warmstart, scaled", "Adagrad, synchronous"]


@pytest.fixture
def bench(tmp_path):
    config = tmp_path / "generated.toml"
    config.write_text(CONFIG)

    def run(*words: str) -> subprocess.CompletedProcess:
        always = ["--config", config, "--results", tmp_path / "runs", "--units", "4", "--epochs", "1"]
        command = [sys.executable, SCRIPT, *always, "--search-epochs", "1", "--replicas", "1", "4", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    return run


def test_a_small_table(bench):
    late = bench("--seconds", "0", "--variants", *VARIANTS)
    assert late.returncode == 75 and "to go on" in late.stderr and late.stdout == ""

    first = bench("--variants", *VARIANTS)
    assert first.returncode == 0, first.stderr
    cells = json.loads(first.stdout.splitlines()[-1])["results"]
    assert [(cell["variant"], cell["replicas"]) for cell in cells] == [(name, r) for name in VARIANTS for r in (1, 4)]
    assert all(0 <= cell["accuracy"] <= 1 and cell["rate"] > 0 for cell in cells)
    staleness = {(cell["variant"], cell["replicas"]): cell["staleness"] for cell in cells}
    assert staleness["Adagrad, as it is", 1] < 1 < staleness["Adagrad, as it is", 4] < 4
    assert staleness["Adagrad, synchronous", 4] == 0

    again = bench("--seconds", "0", "--variants", *VARIANTS)  # no run is done again
    assert again.returncode == 0 and again.stderr == ""
    assert json.loads(again.stdout.splitlines()[-1])["results"] == cells
