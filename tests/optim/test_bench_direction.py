"""bench/sandblaster.py --scenario direction runs and tells what it should; how fast anything is, no test says."""

import json
import math
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "bench" / "sandblaster.py"


def test_a_direction_is_measured_against_the_memory():
    command = [sys.executable, SCRIPT, "--scenario", "direction", "--size", "20000", "--history", "4"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    facts = json.loads(run.stdout.splitlines()[-1])
    assert facts["bench"] == "sandblaster" and facts["scenario"] == "direction" and facts["measured"] >= 10
    assert facts["round_trips"] == 2
    # s and y; the dot products with 9 vectors; their combination; the copy to the origin; the first trial
    assert facts["vectors_moved"] == 2 * 3 + 9 + 10 + 2 + 3
    for key in ("bandwidth_ratio", "gbps", "copy_gbps", "read_gbps", "ms", "coordinator_ms"):
        assert 0 < facts[key] < math.inf
    assert math.isclose(facts["bandwidth_ratio"], facts["gbps"] / max(facts["copy_gbps"], facts["read_gbps"]))
    assert {"cpu", "cores", "threads"} <= set(facts["machine"])
    assert run.stderr == ""
