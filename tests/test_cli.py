"""The command in one process: what it prints where, and its exit codes."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi import launcher, small_problem
from mpi.refusals import require_refusal, run_command
from mpi.small_problem import COMMAND, Problem, Run

import distbelief
from distbelief.launch.lacking import told
from distbelief.processor import prepare

MISCHIEF = Path(__file__).parent / "mpi" / "mischief.py"


def command(*words: str | Path, cwd: str | Path = ".") -> launcher.Completed:
    return run_command([*COMMAND, *map(str, words)], None, cwd)


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    return small_problem.write(tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="module")
def trained(problem, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("trained") / "run")
    run_command(problem.train(run.folder), None, problem.folder).require_success()
    return run


def test_version_and_help():
    assert command("--version").require_success().stdout == f"{distbelief.__version__}\n"
    helped = command("--help").require_success().stdout
    assert all(name in helped for name in ("train", "evaluate", "info", "data"))


def test_info():
    lines = command("info").require_success().stdout.splitlines()
    assert lines[0].split() == ["distbelief", distbelief.__version__]
    assert any(line.startswith("BLAS ") for line in lines) and any(line.startswith("MPI ") for line in lines)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "the following arguments are required: command"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: CONFIG (see distbelief train --help)"),
        (["train", "gone.toml"], "gone.toml: No such file or directory"),
        (["train", "."], ".: Is a directory"),
        (["evaluate", "gone"], "gone: not a run's folder"),
        (["data", "imagenet", "--to", "."], "invalid choice: 'imagenet'"),
        (["data", "fashion-mnist"], "the following arguments are required: --to"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_bad_arguments(tmp_path, words, text):
    require_refusal(command(*words, cwd=tmp_path), text)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_prints_one_line(trained, tmp_path):
    result = trained.result
    completed = command("evaluate", trained.folder, cwd=tmp_path).require_success()
    assert completed.stdout == f"test accuracy {result['test_accuracy']:.4f}  (loss {result['test_loss']:.4f})\n"
    assert completed.stderr == ""


def test_evaluate_without_test_examples(problem, trained, tmp_path):
    table = small_problem.configuration()
    del table["data"]["test"]
    run = Run(tmp_path / "run")
    small_problem.write_configuration(problem.folder / "no-test.toml", table)
    words = ["train", "no-test.toml", "--set", f"run.folder={run.folder}"]
    said = command(*words, cwd=problem.folder).require_success().stdout
    assert "test accuracy" not in said
    accuracy = run.result["held_out_accuracy"]
    said = command("evaluate", run.folder, cwd=tmp_path).require_success().stdout
    assert said.startswith(f"held out accuracy {accuracy:.4f}")


def test_evaluate_without_an_accuracy(tmp_path):
    """Targets instead of classes."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", random.standard_normal((60, 3)).astype(np.float32))
    np.save(tmp_path / "y.npy", random.standard_normal((60, 1)).astype(np.float32))
    (tmp_path / "c.toml").write_text("""
        [run]
        folder = "run"
        [data]
        train = { inputs = "x.npy", labels = "y.npy" }
        held_out = 20
        [network]
        inputs = 3
        layers = [{ kind = "dense", outputs = 1 }]
        loss = "squared"
        [rule]
        kind = "fixed"
        rate = 0.01
        [stop]
        epochs = 1
        """)
    command("train", "c.toml", cwd=tmp_path).require_success()
    said = command("evaluate", "run", cwd=tmp_path).require_success().stdout
    assert said == f"held out (loss {Run(tmp_path / 'run').result['held_out_loss']:.4f})\n"


def test_evaluate_the_run_of_a_script(tmp_path):
    (tmp_path / "settings.toml").write_text("")
    require_refusal(command("evaluate", tmp_path), "the run of a script's own model, which has to try its parameters")


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    """A copy of a run that may be damaged."""
    return Path(shutil.copytree(trained.folder, tmp_path / "copy"))


def test_evaluate_without_parameters(copy):
    (copy / "parameters.safetensors").unlink()
    require_refusal(command("evaluate", copy), "parameters.safetensors: no such file")


def test_evaluate_with_damaged_parameters(copy):
    path = copy / "parameters.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    require_refusal(command("evaluate", copy), "parameters.safetensors: not a readable safetensors file")


def test_evaluate_with_the_parameters_of_another_network(copy):
    text = (copy / "config.toml").read_text()
    assert "outputs = 32" in text
    (copy / "config.toml").write_text(text.replace("outputs = 32", "outputs = 33"))
    require_refusal(command("evaluate", copy), "tensor dense0.b has shape (32,), the network expects (33,)")


def test_an_exception_has_its_traceback(problem, tmp_path):
    words = problem.train(tmp_path / "run")[len(COMMAND) :]
    argv = [sys.executable, str(MISCHIEF), "0", "fails:in-gradient", *words]
    done = subprocess.run(argv, cwd=problem.folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.endswith("ArithmeticError: planted\n")
    assert not (tmp_path / "run" / "result.json").exists()


def test_an_interrupt_is_one_line(problem, tmp_path):
    words = problem.train(tmp_path / "run", ["stop.epochs=1000000", "evaluate.every_examples=100000"])
    with subprocess.Popen(words, cwd=problem.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while "held out at" not in run.stdout.readline():
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130 and said == "distbelief: interrupted\n"


def in_bfloat16(problem, folder) -> list[str]:
    return problem.train(folder, ["network.dtype=bfloat16", "stop.epochs=1"])[len(COMMAND) :]


def says_of_bfloat16(program, words, ranks, folder) -> list[str]:
    """The lines of a command that say what it falls back to."""
    completed = run_command([*program, *words], ranks, folder).require_success()
    return [line for line in (completed.stdout + completed.stderr).splitlines() if "bfloat16: " in line]


def lacking(rank) -> list[str]:
    """The command, on a CPU without products of bfloat16 for that rank."""
    return [sys.executable, str(MISCHIEF), rank, "lacks-bfloat16"]


FALLS_BACK = (
    "bfloat16: this CPU has neither amx_bf16 nor avx512_bf16; its numbers are widened and multiplied in "
    "float32, no faster than float32 itself"
)


def test_what_bfloat16_falls_back_to_is_said_once(problem, tmp_path):
    for words in (in_bfloat16(problem, tmp_path / "run"), ["evaluate", str(tmp_path / "run")]):
        assert says_of_bfloat16(lacking("every"), words, None, problem.folder) == [f"distbelief: {FALLS_BACK}"]


@pytest.mark.mpi
@pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec")
@pytest.mark.parametrize("rank", ["every", "1"])
def test_what_the_ranks_fall_back_to_is_said_once(problem, tmp_path, rank):
    own = lack_of_this_machine()
    lacks = [FALLS_BACK if rank in ("every", str(i)) else own for i in range(3)]
    said = says_of_bfloat16(lacking(rank), in_bfloat16(problem, tmp_path / "run"), 3, problem.folder)
    assert said == [f"distbelief: {line}" for line in told(lacks)]


def test_nothing_is_said_of_bfloat16_where_it_is_not_lacking(problem, tmp_path):
    said = says_of_bfloat16(COMMAND, in_bfloat16(problem, tmp_path / "run"), None, problem.folder)
    assert said == [f"distbelief: {line}" for line in told([lack_of_this_machine()])]


def lack_of_this_machine() -> str:
    words = prepare(dtype="bfloat16")
    prepare()
    return words or ""


@pytest.mark.mpi
@pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec")
@pytest.mark.parametrize("name", ["evaluate", "info"])
def test_one_rank_alone_prints(trained, name):
    words = [name, str(trained.folder)] if name == "evaluate" else [name]
    completed = run_command([*COMMAND, *words], 3, trained.folder).require_success()
    lines = completed.stdout.splitlines()
    assert lines and len(lines) == len(set(lines)), completed
