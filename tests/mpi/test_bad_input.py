"""What bad input gets, from the real command: one line from one rank, exit code 2, and nothing else."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from distbelief import data
from mpi import launcher, small_problem
from mpi.refusals import contents, require_refusal, run_command
from mpi.small_problem import BATCH, COMMAND, HELD_OUT, TRAINING, Problem, Run

MISCHIEF = Path(__file__).with_name("mischief.py")
needs_mpiexec = pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec")
under_mpi = [pytest.mark.mpi, needs_mpiexec]
# Ranks: None is the command alone, without mpiexec.
ALONE_AND_TOGETHER = [pytest.param(None, id="alone"), pytest.param(3, id="3 ranks", marks=under_mpi)]


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    """The small problem, with broken variants of its files beside it."""
    problem = small_problem.write(tmp_path_factory.mktemp("problem"))
    folder = problem.folder
    images, labels = (folder / "train-images.gz").read_bytes(), (folder / "train-labels").read_bytes()
    (folder / "truncated-images.gz").write_bytes(images[:-1000])
    (folder / "truncated-labels").write_bytes(labels[:-10])
    (folder / "not-toml.toml").write_text("[run\n")
    pixels, kinds = small_problem.examples(HELD_OUT + TRAINING)
    np.save(folder / "labels-and-one.npy", np.append(kinds, 0))
    spoilt = pixels.astype(np.float32)
    spoilt[SPOILT_ROW, 3, 3] = np.nan
    np.save(folder / "nan.npy", spoilt)
    return problem


REFUSED = {
    "unknown key": ("downpour.n_fetsch=3", "downpour.n_fetsch: unknown key, expected one of: n_fetch"),
    "wrong type": ("data.batch=many", "data.batch: ", "int", "found 'many'"),
    "n_push of 0": ("downpour.n_push=0", "downpour.n_push: expected int >= 1, found 0"),
    "layer width of -1": ("network.layers.0.outputs=-1", "network.layers.0.outputs: expected int >= 1, found -1"),
    "missing file": ("data.train.inputs=gone.gz", "gone.gz: cannot be read (No such file or directory)"),
    "truncated .gz": ("data.train.inputs=truncated-images.gz", "truncated-images.gz: damaged gzip"),
    "counts that differ": ("data.train.labels=labels-and-one.npy", "has 2200 examples", "has 2201 labels"),
    "labels outside": ("network.layers.1.outputs=5", "train-labels: label ", "expected 0 to 4"),
    "one class": ("network.layers.1.outputs=1", "network.layers.1 (dense): outputs of shape [1]", "[classes]"),
    "another input width": ("network.inputs=63", "train-images.gz: an example has 64 numbers", "expected 63"),
}
REFUSED_ALONE = {
    "no memory for a minibatch": ("data.batch=100000000000000000", "network.layers.0 (dense0): outputs [32, 1000"),
    "more numbers than there can be": ("network.layers.0.outputs=100000000000000", "network.layers.0 (dense): outputs"),
    "unknown section": ("sever.shards=2", "sever: unknown key"),
    "no layers": ("network.layers=[]", "network.layers: "),
    "unknown rule": ("rule.kind=adam", "rule", "adam"),
    "rate of 0": ("rule.rate=0", "rule.rate: expected float > 0", "found 0"),
    "no stop": ("stop={}", "stop: expected epochs, seconds or both"),
    "missing key": ("rule={kind='fixed'}", "rule.rate: missing"),
    "more held out than there is": ("data.held_out=5000", "data.held_out: 5000, expected 0 to 2199"),
    "no such place": ("network.layers.7.outputs=3", "--set network.layers.7.outputs=3"),
    "no value": ("seed", "--set seed: expected section.key=value"),
    "missing test file": ("data.test.labels=gone.npy", "gone.npy: cannot be read (No such file or directory)"),
    "truncated IDX": ("data.train.labels=truncated-labels", "truncated-labels: truncated", "expected 2208 bytes"),
}


def cases(refused: dict[str, tuple[str, ...]]):
    return pytest.mark.parametrize(
        ("setting", "texts"), [(first, rest) for first, *rest in refused.values()], ids=refused
    )


@pytest.mark.mpi
@needs_mpiexec
@cases(REFUSED)
def test_refused_by_a_job(problem, tmp_path, setting, texts):
    require_refused_without_a_trace(problem, tmp_path, setting, texts, ranks=2)


@cases(REFUSED | REFUSED_ALONE)
def test_refused_by_one_process(problem, tmp_path, setting, texts):
    require_refused_without_a_trace(problem, tmp_path, setting, texts, ranks=None)


def require_refused_without_a_trace(problem, tmp_path, setting, texts, ranks):
    before = contents(problem.folder)
    run = tmp_path / "deep" / "run"
    require_refusal(run_command(problem.train(run, [setting]), ranks, problem.folder), *texts)
    assert contents(problem.folder) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ranks", "shards"), [(None, 2), *(pytest.param(3, n, marks=under_mpi) for n in (3, 4))])
def test_too_many_shards(problem, tmp_path, ranks, shards):
    command = problem.train(tmp_path / "run", [f"server.shards={shards}"])
    require_refusal(run_command(command, ranks, problem.folder), f"server.shards: {shards}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranks", [pytest.param(None, id="alone"), pytest.param(2, id="2 ranks", marks=under_mpi)])
def test_run_folder_that_holds_a_run(problem, tmp_path, ranks):
    run = Run(tmp_path / "run")
    overwrite, refused = "run.overwrite=true", ("already holds a run", str(run.folder), "run.overwrite=true")
    run_command(problem.train(run.folder, ["stop.epochs=1"]), None, problem.folder).require_success()
    before = contents(tmp_path)
    require_refusal(run_command(problem.train(run.folder), ranks, problem.folder), *refused)
    # Told to overwrite, but with nothing that could take its place.
    require_refusal(run_command(problem.train(run.folder, [overwrite, "network.inputs=63"]), None, problem.folder))
    assert contents(tmp_path) == before
    run_command(problem.train(run.folder, [overwrite, "stop.epochs=2"]), ranks, problem.folder).require_success()
    assert run.result["examples"] == run.metrics[-1]["examples"] == 2 * TRAINING
    assert run.files == {"config.toml", "metrics.jsonl", "parameters.safetensors", "result.json"}


def test_run_folder_below_a_file(problem, tmp_path):
    (tmp_path / "file").write_text("")
    completed = run_command(problem.train(tmp_path / "file" / "run"), None, problem.folder)
    require_refusal(completed, "run.folder: ", "is not a folder we may write to")


# An example that is trained on, not held out.
SPOILT_ROW = int(data.held_out(HELD_OUT + TRAINING, HELD_OUT, seed=3)[0][1001])


@pytest.mark.parametrize("ranks", ALONE_AND_TOGETHER)
def test_nan_in_the_data(problem, tmp_path, ranks):
    run = Run(tmp_path / "run")
    replica, step = _first_step_with(SPOILT_ROW, 1 if ranks is None else ranks - 1)
    completed = run_command(problem.train(run.folder, ["data.train.inputs=nan.npy"]), ranks, problem.folder)
    require_refusal(completed, f"the loss is nan at step {step} of replica {replica}", "kept the parameters")
    _require_good_parameters(run)


def _first_step_with(row: int, replicas: int) -> tuple[int, int]:
    """The replica that reads `row`, and its step that does so first; the same data, read here without a network."""
    images, labels = small_problem.examples(HELD_OUT + TRAINING)
    marked = np.zeros((len(images), 1))
    marked[row] = 1
    training, _ = data.held_out(len(images), HELD_OUT, seed=3)
    for replica in range(replicas):
        part = data.part(training, replica, replicas)
        if row in part:
            batches = data.Batches(data.dataset_of(marked, labels), part, BATCH, seed=3, stream=replica)
            return replica, next(step for step, batch in enumerate(batches.epoch(0), 1) if batch.x_in.any())
    raise AssertionError(f"row {row} is held out")


@pytest.mark.parametrize("ranks", ALONE_AND_TOGETHER)
def test_training_that_diverges(problem, tmp_path, ranks):
    run = Run(tmp_path / "run")
    line = require_refusal(run_command(problem.train(run.folder, ["rule.rate=1e38"]), ranks, problem.folder))
    assert re.search(r"at step \d+ of replica \d", line) and "kept the parameters" in line
    _require_good_parameters(run)


def _require_good_parameters(run: Run) -> None:
    assert run.files == {"config.toml", "metrics.jsonl", "parameters.safetensors", "result.json"}
    assert run.result["complete"] is False
    assert all(np.isfinite(record["loss"]) for record in run.metrics)
    tensors = safetensors.numpy.load_file(run.folder / "parameters.safetensors")
    assert sum(tensor.size for tensor in tensors.values()) == small_problem.PARAMETERS
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.mpi
@needs_mpiexec
def test_file_missing_on_one_rank_only(problem, tmp_path, rank):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, str(MISCHIEF), str(rank), "goes-elsewhere", *_words(problem.train(tmp_path / "run"))]
    completed = run_command(command, 3, problem.folder, env={"ELSEWHERE": str(elsewhere)})
    require_refusal(completed, f"rank {rank}: {elsewhere}/train-images.gz: cannot be read")
    assert list(tmp_path.iterdir()) == [elsewhere]


WORDS = {
    "no configuration": (["train"], "the following arguments are required: CONFIG"),
    "no such option": (["train", "config.toml", "--fast"], "unrecognized arguments: --fast"),
    "no such file": (["train", "gone.toml"], "gone.toml: No such file or directory"),
    "not TOML": (["train", "not-toml.toml"], "not-toml.toml: not TOML"),
    "no run": (["evaluate", "gone"], "gone: not a run's folder"),
}


@pytest.mark.mpi
@needs_mpiexec
@pytest.mark.parametrize(("words", "text"), WORDS.values(), ids=WORDS)
def test_bad_arguments(problem, words, text):
    before = contents(problem.folder)
    require_refusal(run_command([*COMMAND, *words], 3, problem.folder), text)
    assert contents(problem.folder) == before


@pytest.mark.parametrize("words", [["train"], ["evaluate", "gone"]], ids=["train", "evaluate"])
@pytest.mark.mpi
@needs_mpiexec
def test_the_line_comes_even_if_rank_0_is_the_last_to_know(problem, words):
    # mpiexec ends all others as soon as one has ended with an error.
    command = [sys.executable, str(MISCHIEF), "0", "comes-late", *words]
    require_refusal(run_command(command, 3, problem.folder))


def _words(command: list[str]) -> list[str]:
    """What follows `distbelief` in a command."""
    assert command[: len(COMMAND)] == COMMAND
    return command[len(COMMAND) :]
