"""Networks cut over ranks on MPI: the same comparison with one rank as in the simulator."""

from pathlib import Path

import pytest

from mpi import launcher

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]
PROGRAM = Path(__file__).with_name("partition_checks.py")


@pytest.mark.parametrize("partitions", [2, 5])
def test_gradient_and_score_are_those_of_one_rank(partitions):
    completed = launcher.run(launcher.python_program(PROGRAM), ranks=partitions, timeout=120).require_success()
    assert completed.stdout.endswith("all passed\n"), completed
