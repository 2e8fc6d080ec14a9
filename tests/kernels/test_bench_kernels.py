"""bench/kernels.py runs and tells what it should; how fast anything is, no test says."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "kernels.py"


SUBJECTS = {
    "dense": {"dense_forward", "dense_backward"},
    "update": {"sgd", "adagrad", "accrue"},
    "batch": {"gather_columns"},
    "local": {"local_forward", "local_backward"},
    "convolution": {"convolution_forward", "convolution_backward"},
}


def bench(*words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, SCRIPT, "--quick", *words]
    return subprocess.run(command, env=environment | more, capture_output=True, text=True, timeout=60, check=check)


def test_a_quick_run_ends_with_a_line_of_json():
    run = bench(MKL_NUM_THREADS="2")  # what the user says stands
    *table, last = run.stdout.splitlines()
    facts = json.loads(last)
    assert facts["bench"] == "kernels" and facts["quick"] is True and facts["repetitions"] >= 3
    assert {"cpu", "cores", "python", "numpy", "numpy_blas", "scipy", "scipy_blas", "threads"} <= set(facts["machine"])
    assert facts["machine"]["threads"]["OPENBLAS_NUM_THREADS"] == "1"
    assert facts["machine"]["threads"]["MKL_NUM_THREADS"] == "2"

    assert all(0 < facts["roofline"][limit] < math.inf for limit in ("gemm", "memory"))
    results = {result["kernel"]: result for result in facts["results"]}
    assert set(results) == set().union(*SUBJECTS.values())
    for kernel, result in results.items():
        rivals = ["numpy", "memcpy"] if kernel in SUBJECTS["update"] else ["numpy"]
        rivals += ["c"] if kernel == "adagrad" and shutil.which("gcc") else []
        for rival in rivals:
            assert 0 < result[rival] < math.inf
            assert math.isclose(result[f"of_{rival}"], result["distbelief"] / result[rival])
        moves = kernel in SUBJECTS["update"] | SUBJECTS["batch"]
        assert result["unit"] == ("GB/s" if moves else "GFLOP/s")
        # What only moves is bound by memory; what computes by that or by arithmetic, whichever takes longer.
        bound = result["distbelief"] / facts["roofline"]["memory" if moves else "gemm"]
        assert math.isclose(result["of_roofline"], bound) or (not moves and result["of_roofline"] > bound)
    assert all(line.startswith(kernel) for kernel, line in zip(results, table[2:], strict=True))
    assert run.stderr == ""


def test_one_subject_alone():
    facts = json.loads(bench("--only", "local").stdout.splitlines()[-1])
    assert {result["kernel"] for result in facts["results"]} == SUBJECTS["local"]


def test_without_pytorch_the_race_is_refused_in_one_line(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = bench("--only", "local", "--against", "torch", check=False, PYTHONPATH=path)
    assert run.returncode == 1 and run.stdout == ""
    assert (
        run.stderr.startswith("kernels.py: --against torch: PyTorch is not installed") and run.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("words", [(), ("--only", "update")])
def test_a_race_needs_a_subject_that_pytorch_has(words):
    run = bench(*words, "--against", "torch", check=False)
    assert run.returncode == 1 and "--only local" in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.parametrize("subject", ["local", "convolution"])
def test_a_race_with_pytorch_ends_with_both_times(subject):
    pytest.importorskip("torch")
    facts = json.loads(bench("--only", subject, "--against", "torch").stdout.splitlines()[-1])
    assert math.isclose(facts["ratio"], facts["reference_ms"] / facts["ours_ms"])
    assert 0 < facts["gflops"] < math.inf and facts["against"] == "torch"
