"""Synchronous SGD as users start it: it learns as one process does, and a rank that is silent ends the job."""

import re
import sys
from pathlib import Path

import pytest
import safetensors.numpy

from mpi import launcher, small_problem
from mpi.refusals import require_refusal, run_command
from mpi.small_problem import COMMAND, EPOCHS, TRAINING, Problem, Run

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]
HERE = Path(__file__).parent
SETTING = "procedure=synchronous"


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    return small_problem.write(tmp_path_factory.mktemp("problem"))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_learns(problem, tmp_path, ranks):
    run = Run(tmp_path / "run")
    # More shards than ranks would be refused, if there were any.
    command = problem.train(run.folder, [SETTING, "server.shards=9"])
    said = run_command(command, ranks, problem.folder).require_success().stdout
    assert said.startswith("serial training" if ranks == 1 else f"synchronous SGD on {ranks} ranks: {ranks} replicas")
    assert run.result["complete"] and run.result["test_accuracy"] > 0.95
    assert run.result["examples"] == EPOCHS * TRAINING
    assert len(run.metrics) == 1 + EPOCHS


def test_replicas_together_do_what_one_process_does(problem, tmp_path):
    """With one minibatch an epoch, the whole of the data, they see the same examples in any order."""
    settings = ["network.dtype=float64", "rule={kind='fixed', rate=0.1}"]
    tensors = []
    for ranks, batch in ((None, TRAINING), (4, TRAINING // 4)):
        run = Run(tmp_path / f"{batch}")
        command = problem.train(run.folder, [*settings, SETTING, f"data.batch={batch}"])
        run_command(command, ranks, problem.folder).require_success()
        tensors.append(safetensors.numpy.load_file(run.folder / "parameters.safetensors"))
    for name, serial in tensors[0].items():
        assert tensors[1][name] == pytest.approx(serial, rel=0, abs=1e-12)


def test_a_silent_rank_is_named(problem, tmp_path):
    command = problem.train(tmp_path / "run", [SETTING, "stop.epochs=1000", "run.timeout=3"])[len(COMMAND) :]
    argv = [sys.executable, str(HERE / "mischief.py"), "1", "falls-silent:in-gradient", *command]
    completed = launcher.run(argv, ranks=3, cwd=problem.folder)
    assert completed.returncode != 0 and completed.seconds < 25, completed
    # Each waits for its neighbour: the chain leads to the one that says nothing.
    said = re.findall(
        r"^.*DeadlineExpired: rank (.*) waited 3 s for rank (.*) to (?:send|take)", completed.stderr, re.M
    )
    assert ("2", "1") in said and {waiting for waiting, _ in said} <= {"0", "2"}, completed


def test_a_gradient_that_is_not_finite_is_one_line():
    argv = [sys.executable, str(HERE / "script.py"), "not_finite_together", "2"]
    completed = launcher.run(argv, ranks=3)
    line = require_refusal(completed)
    assert re.search(r"the gradient has a NaN or infinity at step \d+ of replica 2$", line)
