"""One rank fails, dies or falls silent: the whole job ends within seconds, and says why."""

import re
import sys
from pathlib import Path

import pytest

from mpi import launcher, small_problem
from mpi.small_problem import COMMAND, Problem

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]
MISCHIEF = Path(__file__).with_name("mischief.py")
# Rank 0 is coordinator and shard 0, rank 1 is shard 1, ranks 2 and 3 are replicas 0 and 1.
RANKS, SETTINGS = 4, ["server.shards=2", "stop.epochs=1000", "downpour.warmstart=0"]
SOON = 25.0
"""Seconds; the job would take minutes, and its deadline is longer, where a test does not set it."""


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    return small_problem.write(tmp_path_factory.mktemp("problem"))


def train_with(mischief: str, rank: int, problem: Problem, run: Path, *settings: str) -> launcher.Completed:
    command = problem.train(run, [*SETTINGS, *settings])[len(COMMAND) :]
    argv = [sys.executable, str(MISCHIEF), str(rank), mischief, *command]
    completed = launcher.run(argv, ranks=RANKS, cwd=problem.folder)
    assert completed.returncode != 0, completed
    assert completed.seconds < SOON
    assert not (run / "result.json").exists()
    return completed


@pytest.mark.parametrize(
    ("where", "rank", "function"),
    [
        ("in-preparation", 3, "_prepare"),
        ("in-evaluation", 0, "_evaluate"),  # the coordinator
        ("in-apply", 0, "take"),  # the shard beside it
        ("in-apply", 1, "take"),  # a shard alone
        ("in-gradient", 3, "_train"),
    ],
)
def test_an_exception_ends_the_job_with_its_traceback(problem, tmp_path, where, rank, function):
    completed = train_with(f"fails:{where}", rank, problem, tmp_path / "run")
    assert completed.stderr.count("Traceback (most recent call last)") == 1, completed
    assert "ArithmeticError: planted" in completed.stderr
    assert f"in {function}" in completed.stderr


@pytest.mark.parametrize("where", ["in-apply", "in-gradient"])
def test_a_rank_without_memory_says_so_in_a_line(problem, tmp_path, where):
    rank = 1 if where == "in-apply" else 2
    completed = train_with(f"runs-out-of-memory:{where}", rank, problem, tmp_path / "run")
    said = [line for line in completed.stderr.splitlines() if line.startswith("distbelief: error: ")]
    expected = (
        rf"distbelief: error: rank {rank} on \S+ has not enough memory: Unable to allocate 1\.00 EiB for an array "
    )
    assert len(said) == 1 and re.match(expected, said[0]), completed
    assert "Traceback" not in completed.stderr and completed.returncode == 2


def test_an_exception_after_training_ends_the_job(problem, tmp_path):
    # The others wait for rank 0 outside MPI's finalisation, where an abort would make mpirun hang at times.
    completed = train_with("fails:at-the-end", 0, problem, tmp_path / "run", "stop.epochs=1")
    assert "a rank has left" not in completed.stdout
    assert completed.stderr.count("Traceback (most recent call last)") == 1, completed
    assert "ArithmeticError: planted" in completed.stderr


def test_an_exception_before_mpi_ends_the_job(problem, tmp_path):
    # The others are on their way into MPI, where they would wait for this rank.
    completed = train_with("fails:before-mpi", 1, problem, tmp_path / "run")
    assert "ArithmeticError: planted" in completed.stderr


def test_a_rank_that_is_killed_ends_the_job(problem, tmp_path):
    train_with("is-killed:in-gradient", 3, problem, tmp_path / "run")


@pytest.mark.parametrize(
    ("where", "rank", "message"),
    [
        ("in-gradient", 3, r"rank 0 waited [45] s for a report of replica 1 \(rank 3\)"),
        ("in-apply", 1, r"rank [23] waited 3 s for the shards on ranks \[1\] to apply push \d+"),
        ("in-evaluation", 0, r"rank ([23] waited 3 s for the shards on ranks \[0\]|1 waited 3 s for the coordinator)"),
    ],
    ids=["replica", "shard", "coordinator"],
)
def test_a_silent_rank_is_named(problem, tmp_path, where, rank, message):
    completed = train_with(f"falls-silent:{where}", rank, problem, tmp_path / "run", "run.timeout=3")
    said = re.findall(r"^.*DeadlineExpired: (.*)$", completed.stderr, re.MULTILINE)
    assert said, completed
    assert all(re.match(message, line) for line in said), said
