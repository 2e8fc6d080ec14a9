"""bench/step.py runs and tells what it should; how fast anything is, no test says."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distbelief.processor import mkl

SCRIPT = Path(__file__).parents[2] / "bench" / "step.py"


def bench(*words: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    command = [sys.executable, SCRIPT, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=check)


def told(*words: str) -> dict:
    run = bench("--quick", *words)
    assert run.stderr == ""
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("net", ["speech", "image", "stage"])
def test_a_quick_run_ends_with_a_line_of_json(net):
    facts = told("--net", net, "--batch", "16")
    assert facts["bench"] == "step" and facts["net"] == net and facts["batch"] == 16 and facts["dtype"] == "float32"
    assert 0 < facts["ours_ms"] < math.inf and 0 < facts["gflops"] < math.inf
    assert "ratio" not in facts and "cpu" in facts["machine"]
    assert facts["bytes_planned"] >= facts["bytes_least"] > 8 * facts["parameters"]
    assert math.isclose(facts["planned_of_least"], facts["bytes_planned"] / facts["bytes_least"])
    assert math.isclose(facts["taken_of_least"], facts["bytes_taken"] / facts["bytes_least"])
    if net == "speech":
        assert math.isclose(facts["share_not_products"], 1 - facts["products_ms"] / facts["ours_ms"])


def test_bfloat16_and_threads():
    facts = told("--dtype", "bfloat16", "--threads", "2")
    assert facts["dtype"] == "bfloat16" and facts["threads"] == 2 and facts["ours_ms"] > 0 and facts["rounding_ms"] > 0


def test_two_threads_race_with_one():
    facts = told("--threads", "2", "--against", "one-thread")
    assert facts["reference"] == "one thread"
    assert math.isclose(facts["ratio"], facts["reference_ms"] / facts["ours_ms"])


def test_without_pytorch_the_race_is_refused_in_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = bench("--against", "torch", check=False, PYTHONPATH=path)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith("step.py: --against torch: ") and run.stderr.count("\n") == 1


@pytest.mark.skipif(mkl.library() is not None, reason="MKL is installed")
def test_without_mkl_its_products_are_refused_in_one_line():
    run = bench("--blas", "mkl", check=False)
    assert run.returncode == 1 and run.stderr.startswith("step.py: run.blas: ") and run.stderr.count("\n") == 1


@pytest.mark.parametrize(("net", "dtype"), [("speech", "float32"), ("speech", "bfloat16"), ("stage", "float32")])
def test_a_race_with_pytorch_is_of_the_same_networks(net, dtype):
    """The losses agree, or the script says so and fails."""
    pytest.importorskip("torch")
    facts = told("--net", net, "--batch", "8", "--dtype", dtype, "--against", "torch")
    assert math.isclose(facts["ratio"], facts["reference_ms"] / facts["ours_ms"])
    assert facts["reference_ms"] == min(facts["references_ms"].values())
    assert len(facts["references_ms"]) == (2 if dtype == "bfloat16" else 1)
