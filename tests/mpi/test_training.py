"""`distbelief train` as users start it: any number of ranks and shards learns, and leaves a complete run."""

import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.numpy

from distbelief import config
from distbelief.launch.evaluation import evaluate
from distbelief.server.messages import HEADER, RECORD
from mpi import launcher, small_problem
from mpi.refusals import run_command
from mpi.small_problem import COMMAND, EPOCHS, N_FETCH, N_PUSH, PARAMETERS, TRAINING, Problem, Run

needs_mpiexec = pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec")
under_mpi = [pytest.mark.mpi, needs_mpiexec]

FIELDS = {
    *("time", "step", "examples", "loss", "accuracy", "train_loss", "examples_per_s", "staleness", "staleness_max"),
    *("staleness_histogram", "staleness_edges", "updates", "refused", "drift", "bytes_fetched", "bytes_pushed"),
    *("seconds_fetching", "seconds_pushing", "replica_examples_per_s"),
}
FLOAT = 4  # bytes


class Job(NamedTuple):
    """How many ranks (None: no mpiexec) and shards."""

    ranks: int | None
    shards: int

    @property
    def replicas(self) -> int:
        return 1 if self.serial else self.ranks - self.shards

    @property
    def serial(self) -> bool:
        return self.ranks in (None, 1)

    def __str__(self) -> str:
        return "no mpiexec" if self.ranks is None else f"{self.ranks} ranks, {self.shards} shards"


JOBS = [Job(1, 1), Job(2, 1), Job(3, 2), Job(4, 1), Job(4, 3), Job(8, 2)]


class Trained(NamedTuple):
    """A job that has been run on the small problem."""

    job: Job
    run: Run
    completed: launcher.Completed

    @property
    def steps(self) -> list[int]:
        """The steps of each replica, as its part of the data says."""
        parts = [len(range(replica, TRAINING, self.job.replicas)) for replica in range(self.job.replicas)]
        return [EPOCHS * -(-part // small_problem.BATCH) for part in parts]

    def times(self, every: int) -> int:
        """How often all replicas together do what each does at its first of every `every` steps."""
        return sum(-(-steps // every) for steps in self.steps)


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    return small_problem.write(tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="module", params=[Job(None, 1), *(pytest.param(job, marks=under_mpi) for job in JOBS)], ids=str)
def trained(request, problem, tmp_path_factory) -> Trained:
    job = request.param
    run = Run(tmp_path_factory.mktemp("trained") / "deep" / "run")
    command = problem.train(run.folder, [f"server.shards={job.shards}"])
    completed = run_command(command, job.ranks, problem.folder)
    return Trained(job, run, completed.require_success())


def test_learns(trained):
    result = trained.run.result
    assert result["complete"] is True
    assert result["test_accuracy"] > 0.95 and result["held_out_accuracy"] > 0.95
    first, *_, last = trained.run.metrics
    assert first["examples"] == 0
    if trained.job.serial:  # elsewhere replicas train already while it evaluates
        assert first["accuracy"] < 0.4
    assert last["examples"] == result["examples"] == EPOCHS * TRAINING
    assert last["step"] == sum(trained.steps)


def test_rank_0_alone_prints(trained):
    lines = [line for line in trained.completed.stdout.splitlines() if "train loss" not in line]  # progress, if slow
    kinds = ["serial training" if trained.job.serial else "Downpour on"]
    kinds += ["held out at"] * len(trained.run.metrics) + ["test accuracy", "examples/s"]
    kinds += [] if trained.job.serial else ["mean staleness"]
    kinds += ["run files"]
    assert len(lines) == len(kinds), trained.completed
    for line, kind in zip(lines, kinds, strict=True):
        assert line.startswith(kind)
    assert lines[-1].split()[-1] == str(trained.run.folder)
    assert "\r" not in trained.completed.stdout  # no live line where nobody watches


def test_run_folder_is_complete(trained):
    assert trained.run.files == {"config.toml", "metrics.jsonl", "parameters.safetensors", "result.json"}
    tensors = safetensors.numpy.load_file(trained.run.folder / "parameters.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "dense0.w": (32, 64),
        "dense0.b": (32,),
        "dense1.w": (10, 32),
        "dense1.b": (10,),
    }


def test_resolved_configuration_loads_again(trained, problem, monkeypatch):
    kept = config.load(trained.run.folder / "config.toml")
    monkeypatch.chdir(problem.folder)
    settings = [f"run.folder={trained.run.folder}", f"server.shards={trained.job.shards}"]
    assert kept == config.load(problem.config, settings)
    assert kept.downpour.warmstart == 10 and kept.server.shards == trained.job.shards
    assert Path(kept.data.train.inputs).is_absolute()


def test_metrics(trained):
    records = trained.run.metrics
    assert len(records) >= 3
    shards = 0 if trained.job.serial else trained.job.shards
    for record in records:
        assert set(record) == FIELDS
        assert len(record["staleness"]) == len(record["staleness_max"]) == len(record["updates"]) == shards
        assert record["refused"] == [0] * shards
        for mean, most in zip(record["staleness"], record["staleness_max"], strict=True):
            assert 0 <= mean <= most
        if record["time"] > 0:
            assert record["examples_per_s"] == pytest.approx(record["examples"] / record["time"], rel=1e-3, abs=1)
    for earlier, later in zip(records, records[1:], strict=False):
        assert earlier["time"] < later["time"]
        for growing in ("step", "examples", "bytes_fetched", "bytes_pushed", "seconds_fetching", "seconds_pushing"):
            assert earlier[growing] <= later[growing]
    for earlier, later in zip(records, records[1:-1], strict=False):  # the last one comes when training ends
        assert later["examples"] - earlier["examples"] >= TRAINING / 2
    assert records[0]["train_loss"] is None and records[-1]["train_loss"] > 0


def test_bytes_are_those_of_n_fetch_and_n_push(trained):
    last = trained.run.metrics[-1]
    if trained.job.serial:
        assert last["bytes_fetched"] == last["bytes_pushed"] == 0
        return
    shards, fetches, pushes = trained.job.shards, trained.times(N_FETCH), trained.times(N_PUSH)
    # A read that one of the replica's own pushes has met half-way is repeated.
    repeated = last["bytes_fetched"] - fetches * (PARAMETERS * FLOAT + shards * RECORD.itemsize)
    assert 0 <= repeated <= pushes * PARAMETERS * FLOAT
    assert last["bytes_pushed"] == pushes * (PARAMETERS * FLOAT + shards * HEADER.itemsize)
    assert last["updates"] == [pushes] * shards


def test_evaluate_elsewhere_says_the_same(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    which, loss, accuracy = evaluate(str(trained.run.folder))
    assert which == "test"
    assert loss == pytest.approx(trained.run.result["test_loss"], rel=1e-6)
    assert accuracy == trained.run.result["test_accuracy"]
    assert f"test accuracy  {accuracy:.4f}  (loss {loss:.4f})" in trained.completed.stdout


def test_one_process_never_imports_mpi(problem, tmp_path):
    program = (
        "import sys; from distbelief.cli import main; code = main(sys.argv[1:]);"
        "print([name for name in sys.modules if name.startswith('mpi4py')]); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, *problem.train(tmp_path / "run", ["stop.epochs=1"])[len(COMMAND) :]]
    assert run_command(command, None, problem.folder).require_success().stdout.endswith("\n[]\n")


def test_resolved_configuration_trains_the_same_again(problem, tmp_path):
    first, again = Run(tmp_path / "first"), Run(tmp_path / "again")
    run_command(problem.train(first.folder, ["seed=8"]), None, problem.folder).require_success()
    resolved = [*COMMAND, "train", str(first.folder / "config.toml"), "--set", f"run.folder={again.folder}"]
    run_command(resolved, None, tmp_path).require_success()
    parameters = [(run.folder / "parameters.safetensors").read_bytes() for run in (first, again)]
    assert parameters[0] == parameters[1]


STOPS = {"seconds": "stop={seconds=0.6}", "seconds before epochs": "stop={seconds=0.6, epochs=1_000_000}"}


@pytest.mark.parametrize("ranks", [None, pytest.param(3, marks=under_mpi)])
@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_stops_after_seconds(problem, tmp_path, ranks, stop):
    run = Run(tmp_path / "run")
    settings = [stop, "evaluate.every_examples=100_000_000"]
    run_command(problem.train(run.folder, settings), ranks, problem.folder).require_success()
    result, last = run.result, run.metrics[-1]
    assert result["complete"] and 0.6 <= result["seconds"] < 10
    assert result["examples"] == last["examples"] > TRAINING
    assert len(run.metrics) == 2  # the first and the last


@pytest.mark.parametrize("warmstart", [0, 10_000])
@pytest.mark.mpi
@needs_mpiexec
def test_warmstart_ends_with_its_steps_or_with_replica_0(problem, tmp_path, warmstart):
    run = Run(tmp_path / "run")
    settings = [f"downpour.warmstart={warmstart}", "stop={seconds=1000, epochs=1}"]
    run_command(problem.train(run.folder, settings), 3, problem.folder).require_success()
    assert run.result["complete"] and run.result["examples"] == TRAINING


@pytest.mark.parametrize(
    "downpour", ["{n_fetch=1_000_000, n_push=1}", "{n_fetch=1, n_push=1}", "{n_fetch=1, n_push=3, overlap=false}"]
)
@pytest.mark.mpi
@needs_mpiexec
def test_one_replica_trains_as_one_process_does(problem, tmp_path, downpour):
    # The shards add up what it pushes, and what it fetches holds its own steps once: the same sums, in another order.
    settings = ["rule={kind='fixed', rate=0.1}", f"downpour={downpour}", "network.dtype=float64"]
    tensors = {}
    for ranks, shards in ((None, 1), (3, 2)):
        run = Run(tmp_path / f"{shards}")
        command = problem.train(run.folder, [*settings, f"server.shards={shards}"])
        run_command(command, ranks, problem.folder).require_success()
        tensors[shards] = safetensors.numpy.load_file(run.folder / "parameters.safetensors")
    for name, serial in tensors[1].items():
        assert tensors[2][name] == pytest.approx(serial, rel=1e-9, abs=1e-12)
