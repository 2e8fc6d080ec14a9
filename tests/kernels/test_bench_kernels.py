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
    "accrue": {"dense_accrue", "dense_bfloat16_accrue"},
    "update": {"sgd", "adagrad", "accrue"},
    "batch": {"gather_columns"},
    "local": {"local_forward", "local_backward"},
    "convolution": {"convolution_forward", "convolution_backward"},
    "pooling": {f"{name}_pool_{way}" for name in ("l2", "max", "average") for way in ("forward", "backward")},
    "normalisation": {"normalise_forward", "normalise_backward"},
    "losses": {"softmax_loss", "logistic_loss", "squared_loss"},
    "dense-bfloat16": {f"dense_bfloat16_{way}" for way in ("forward", "to_weights", "backward")},
}
# What has a column for PyTorch; local layers and convolutions have a race of whole steps.
COLUMNS = ["pooling", "normalisation", "losses", "dense-bfloat16"]
MOVING = set().union(*(SUBJECTS[name] for name in ("update", "batch", "pooling", "normalisation", "losses")))


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

    assert facts["against"] is None and facts["bfloat16"] in ("amx", "avx512", "widened")
    assert all(0 < facts["roofline"][limit] < math.inf for limit in ("gemm", "memory"))
    results = {result["kernel"]: result for result in facts["results"]}
    ours = facts["bfloat16"] != "widened"
    assert set(results) == set().union(*SUBJECTS.values()) - (set() if ours else {"dense_bfloat16_accrue"})
    for kernel, result in results.items():
        rivals = ["numpy", "memcpy"] if kernel in SUBJECTS["update"] else ["numpy"]
        rivals += ["apart"] if kernel in SUBJECTS["accrue"] else []
        rivals += ["c"] if kernel == "adagrad" and shutil.which("gcc") else []
        for rival in rivals:
            assert 0 < result[rival] < math.inf
            assert math.isclose(result[f"of_{rival}"], result["distbelief"] / result[rival])
        assert "torch" not in result
        moves = kernel in MOVING
        assert result["unit"] == ("GB/s" if moves else "GFLOP/s")
        # What only moves is bound by memory; what computes by that or by arithmetic, whichever takes longer.
        bound = result["distbelief"] / facts["roofline"]["memory" if moves else "gemm"]
        assert math.isclose(result["of_roofline"], bound) or (not moves and result["of_roofline"] > bound)
    assert all(line.startswith(kernel) for kernel, line in zip(results, table[2:], strict=True))
    assert run.stderr == ""


def test_one_subject_alone():
    facts = json.loads(bench("--only", "local").stdout.splitlines()[-1])
    assert {result["kernel"] for result in facts["results"]} == SUBJECTS["local"]


def broken(folder: Path, lines: str) -> str:
    """A PYTHONPATH with which `lines` are run before the script."""
    (folder / "sitecustomize.py").write_text(lines)
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


def test_without_pytorch_the_race_is_refused_in_one_line(tmp_path):
    path = broken(tmp_path, "import sys\nsys.modules['torch'] = None\n")
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


@pytest.mark.parametrize("subject", COLUMNS)
def test_pytorch_takes_turns_with_single_kernels(subject):
    pytest.importorskip("torch")
    facts = json.loads(bench("--only", subject, "--against", "torch").stdout.splitlines()[-1])
    assert {result["kernel"] for result in facts["results"]} == SUBJECTS[subject] and facts["against"] == "torch"
    for result in facts["results"]:
        assert 0 < result["torch"] < math.inf
        assert math.isclose(result["of_torch"], result["distbelief"] / result["torch"])


def test_a_rival_that_computes_something_else_is_not_timed(tmp_path):
    path = broken(tmp_path, "import numpy\nnumpy.log1p = numpy.cos\n")
    run = bench("--only", "losses", check=False, PYTHONPATH=path)
    assert run.returncode == 1 and "logistic_loss" not in run.stdout
    assert "RuntimeError: logistic, 50 classes, batch 8, NumPy: result 0 is off by" in run.stderr


@pytest.mark.parametrize(
    ("subject", "function"),
    [
        ("pooling", "torch.nn.functional.max_pool2d"),
        ("normalisation", "torch.sqrt"),
        ("losses", "torch.nn.functional.mse_loss"),
        ("dense-bfloat16", "torch.nn.functional.linear"),
        ("local", "torch.relu"),
        ("convolution", "torch.nn.functional.conv2d"),
    ],
)
def test_pytorch_that_computes_something_else_is_not_timed(subject, function, tmp_path):
    pytest.importorskip("torch")
    path = broken(tmp_path, f"import torch\nright = {function}\n{function} = lambda *a, **k: 1.1 * right(*a, **k)\n")
    run = bench("--only", subject, "--against", "torch", check=False, PYTHONPATH=path)
    assert run.returncode == 1 and "PyTorch: result 0 is off by" in run.stderr.splitlines()[-1]
