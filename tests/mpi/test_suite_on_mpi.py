"""The endpoint suite on MPI: the same checks as on the simulator."""

import re
from pathlib import Path

import pytest

from mpi import launcher

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]
PROGRAM = Path(__file__).with_name("endpoint_checks.py")


def test_all_checks() -> None:
    completed = launcher.run(launcher.python_program(PROGRAM, "all"), ranks=4, timeout=120).require_success()
    assert completed.stdout.endswith("all passed\n"), completed
    told = [line for line in completed.stderr.splitlines() if "without shared memory, fetches take longer" in line]
    assert told and all(re.match("distbelief: windows of .* where /dev/shm has 0 GiB free: ", line) for line in told)
