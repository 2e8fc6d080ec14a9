"""`distbelief train` with roles on other ranks than usual: shards beside replicas, the coordinator by itself."""

import re
import sys
from pathlib import Path

import pytest

from mpi import launcher, small_problem
from mpi.refusals import run_command
from mpi.small_problem import COMMAND, EPOCHS, TRAINING, Problem, Run

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    return small_problem.write(tmp_path_factory.mktemp("problem"))


@pytest.mark.parametrize(
    ("ranks", "settings", "cast"),
    [
        (3, ["server.shards=2", "server.place=beside"], "coordinator and 2 shards beside 3 replicas"),
        (
            4,
            ["server.shards=3", "server.place=beside", "server.coordinator=apart"],
            "coordinator, 3 shards beside 3 replicas",
        ),
        (4, ["server.shards=2", "server.coordinator=apart"], "coordinator, 2 shards, 1 replica"),
    ],
    ids=["all beside", "coordinator apart", "all apart"],
)
def test_learns(problem, tmp_path, ranks, settings, cast):
    run = Run(tmp_path / "run")
    command = problem.train(run.folder, [*settings, "downpour.ramp=10"])
    said = run_command(command, ranks, problem.folder).require_success().stdout
    assert said.startswith(f"Downpour on {ranks} ranks: {cast}, {TRAINING} examples")
    assert run.result["complete"] and run.result["test_accuracy"] > 0.95
    last = run.metrics[-1]
    assert last["examples"] == EPOCHS * TRAINING
    assert len(set(last["updates"])) == 1 and last["drift"] == 0
    assert len(run.metrics) >= 3


def test_a_silent_rank_is_named(problem, tmp_path):
    """Rank 1, a replica with a shard: the others miss the shard or the replica."""
    settings = ["server.shards=2", "server.place=beside", "stop.epochs=1000", "run.timeout=3", "downpour.warmstart=0"]
    command = problem.train(tmp_path / "run", settings)[len(COMMAND) :]
    mischief = Path(__file__).with_name("mischief.py")
    argv = [sys.executable, str(mischief), "1", "falls-silent:in-gradient", *command]
    completed = launcher.run(argv, ranks=3, cwd=problem.folder)
    assert completed.returncode != 0 and completed.seconds < 25, completed
    said = re.findall(r"^.*DeadlineExpired: (.*)$", completed.stderr, re.MULTILINE)
    expected = r"rank [02] waited \d s for (the shards on ranks \[1\] to apply|a report of replica 1 \(rank 1\))"
    assert said and all(re.match(expected, line) for line in said), said
