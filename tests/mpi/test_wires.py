"""Parameters and gradients in bfloat16, which on one node lie in the ranks' windows: no payload is received."""

import sys
from pathlib import Path

import pytest

from distbelief.server.messages import HEADER, RECORD
from mpi import launcher
from mpi.small_problem import COMMAND, EPOCHS, PARAMETERS, TRAINING, Run, write

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec")]
BFLOAT16 = 2  # bytes
MISCHIEF = Path(__file__).with_name("mischief.py")


@pytest.mark.parametrize(("place", "ranks"), [("apart", 5), ("beside", 3)])
def test_replicas_learn_in_bfloat16(tmp_path, place, ranks):
    problem, run = write(tmp_path), Run(tmp_path / "run")
    settings = ["server.fetch_wire=bfloat16", "server.push_wire=bfloat16", "server.shards=2", f"server.place={place}"]
    words = problem.train(run.folder, [*settings, "downpour.n_fetch=1", "downpour.n_push=1"])[len(COMMAND) :]
    argv = [sys.executable, str(MISCHIEF), "every", "fails:in-receiving", *words]
    launcher.run(argv, ranks=ranks, cwd=problem.folder).require_success()
    assert run.result["held_out_accuracy"] > 0.95 and run.result["examples"] == EPOCHS * TRAINING
    last = run.metrics[-1]
    assert last["refused"] == [0, 0] and last["updates"] == [last["step"]] * 2
    assert last["bytes_pushed"] == last["step"] * (PARAMETERS * BFLOAT16 + 2 * HEADER.itemsize)
    assert last["bytes_fetched"] >= last["step"] * (PARAMETERS * BFLOAT16 + 2 * RECORD.itemsize)
