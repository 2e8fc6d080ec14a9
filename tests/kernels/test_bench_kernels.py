"""bench/kernels.py runs and tells what it should; how fast anything is, no test says."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "bench" / "kernels.py"


def test_a_quick_run_ends_with_a_line_of_json():
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["MKL_NUM_THREADS"] = "2"  # what the user says stands
    run = subprocess.run(
        [sys.executable, SCRIPT, "--quick"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    *table, last = run.stdout.splitlines()
    facts = json.loads(last)
    assert facts["bench"] == "kernels" and facts["quick"] is True and facts["repetitions"] >= 3
    assert {"cpu", "cores", "python", "numpy", "numpy_blas", "scipy", "scipy_blas", "threads"} <= set(facts["machine"])
    assert facts["machine"]["threads"]["OPENBLAS_NUM_THREADS"] == "1"
    assert facts["machine"]["threads"]["MKL_NUM_THREADS"] == "2"

    results = {result["kernel"]: result for result in facts["results"]}
    assert set(results) == {"dense_forward", "dense_backward", "sgd", "adagrad", "accrue", "gather_columns"}
    for kernel, result in results.items():
        rivals = ["numpy", "memcpy"] if kernel in ("sgd", "adagrad", "accrue") else ["numpy"]
        for rival in rivals:
            assert 0 < result[rival] < math.inf
            assert math.isclose(result[f"of_{rival}"], result["distbelief"] / result[rival])
        assert result["unit"] == ("GFLOP/s" if kernel.startswith("dense") else "GB/s")
    assert all(line.startswith(kernel) for kernel, line in zip(results, table[1:], strict=True))
    assert run.stderr == ""
