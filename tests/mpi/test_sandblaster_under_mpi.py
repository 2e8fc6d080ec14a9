"""`mpirun distbelief train` by Sandblaster: the same run as in one process, also with slow and silent ranks."""

import json
import sys
from pathlib import Path

import pytest

from mpi import launcher, small_problem
from mpi.small_problem import COMMAND, Problem, Run

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]
MISCHIEF = Path(__file__).with_name("mischief.py")
EVALUATIONS = 8
SETTINGS = [
    "procedure=sandblaster",
    "network.dtype=float64",
    "sandblaster.portion=50",
    "sandblaster.ship_every=2",
    f"sandblaster.stop.evaluations={EVALUATIONS}",
    "stop.epochs=1000",
]


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    return small_problem.write(tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="module")
def truth(problem) -> list[dict]:
    """The evaluations of the same run in one process."""
    launcher.run(problem.train(problem.folder / "alone", SETTINGS), ranks=1, cwd=problem.folder).require_success()
    return evaluations(problem.folder / "alone")


def evaluations(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def train_with(
    mischief: str, problem: Problem, run: Path, *settings: str, ranks: int = 4, whose: int = 3
) -> launcher.Completed:
    """Four ranks, the last of them in trouble; rank 0 is coordinator and shard. Or other ranks."""
    words = problem.train(run, [*SETTINGS, *settings])[len(COMMAND) :]
    return launcher.run([sys.executable, str(MISCHIEF), str(whose), mischief, *words], ranks=ranks, cwd=problem.folder)


def expect_same(found: list[dict], truth: list[dict]) -> None:
    """Every loss and gradient norm on the way: a portion lost or counted twice would change all that follow."""
    assert len(found) == len(truth) == EVALUATIONS
    for here, there in zip(found, truth, strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-9)
        assert here["gradient_norm"] == pytest.approx(there["gradient_norm"], rel=1e-8)
        assert here["step_length"] == pytest.approx(there["step_length"], rel=1e-8)
        assert sum(here["portions"]) == small_problem.TRAINING / 50


@pytest.mark.parametrize(
    ("ranks", "places"),
    [
        (4, ["server.shards=2"]),
        (3, ["server.shards=3", "server.place=beside"]),
        (3, ["server.coordinator=apart"]),
        (4, ["server.shards=3", "server.place=beside", "network.partitions=2"]),
    ],
)
def test_many_ranks_do_what_one_does(problem, truth, tmp_path, ranks, places):
    completed = launcher.run(
        problem.train(tmp_path / "run", [*SETTINGS, *places]), ranks=ranks, cwd=problem.folder
    ).require_success()
    expect_same(evaluations(tmp_path / "run"), truth)
    run = Run(tmp_path / "run")
    assert run.result["complete"] and run.result["reason"] == "evaluations"
    assert run.result["test_accuracy"] == Run(problem.folder / "alone").result["test_accuracy"]
    assert f"Sandblaster (lbfgs) on {ranks} ranks: coordinator" in completed.stdout
    assert ("2 replicas of 2 ranks each" in completed.stdout) == ("network.partitions=2" in places)


def test_a_slow_replica_changes_nothing_and_does_less(problem, truth, tmp_path):
    train_with("is-slow:in-gradient", problem, tmp_path / "run").require_success()
    found = evaluations(tmp_path / "run")
    expect_same(found, truth)
    shares = [sum(counts) for counts in zip(*(each["portions"] for each in found), strict=True)]
    assert 4 * shares[2] < min(shares[:2])
    assert sum(each["backups_issued"] for each in found) > 0


def test_a_replica_that_falls_silent_is_done_without(problem, truth, tmp_path):
    completed = train_with("falls-silent:in-gradient", problem, tmp_path / "run", "run.timeout=4").require_success()
    expect_same(evaluations(tmp_path / "run"), truth)
    assert Run(tmp_path / "run").result["complete"]
    assert "warning: not all ranks answered at the end" in completed.stderr


def test_a_partition_that_falls_silent_takes_its_replica_with_it_and_nothing_else(problem, truth, tmp_path):
    """The other rank of its replica waits for it, gives up, and goes on as what it is besides."""
    settings = ["network.partitions=2", "run.timeout=3"]
    run = tmp_path / "run"
    completed = train_with("falls-silent:in-gradient", problem, run, *settings, ranks=5, whose=4).require_success()
    expect_same(evaluations(run), truth)
    assert sum(each["portions"][1] for each in evaluations(run)[1:]) == 0
    assert Run(run).result["test_accuracy"] == Run(problem.folder / "alone").result["test_accuracy"]
    assert "warning: not all ranks answered at the end" in completed.stderr


def test_a_shard_that_falls_silent_ends_the_job_and_is_named(problem, tmp_path):
    settings = ["server.shards=2", "run.timeout=3"]
    completed = train_with("falls-silent:in-commands", problem, tmp_path / "run", *settings, whose=1)
    assert completed.returncode != 0
    assert "s for the shards on ranks [1] to answer" in completed.stderr
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_replica_that_is_killed_ends_the_job(problem, tmp_path):
    """MPI ends all ranks with it, unless it is told to tolerate faults."""
    completed = train_with("is-killed:in-gradient", problem, tmp_path / "run", "sandblaster.stop.evaluations=100000")
    assert completed.returncode != 0
    assert not (tmp_path / "run" / "result.json").exists()


def test_it_begins_where_downpour_ended(problem, tmp_path):
    launcher.run(problem.train(tmp_path / "first"), ranks=3, cwd=problem.folder).require_success()
    warm = [*SETTINGS, f"sandblaster.warmstart={tmp_path / 'first'}"]
    launcher.run(problem.train(tmp_path / "second", warm), ranks=3, cwd=problem.folder).require_success()
    first, second = Run(tmp_path / "first"), Run(tmp_path / "second")
    assert second.metrics[0]["loss"] == pytest.approx(first.result["held_out_loss"], rel=1e-5)
    losses = [each["loss"] for each in evaluations(tmp_path / "second")]
    assert losses[-1] < losses[0] < 0.5
