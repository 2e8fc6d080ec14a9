"""The launcher itself: what comes out, and that nothing stays behind, whatever the program does."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpi import launcher, processes

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]


def program(folder: Path, text: str) -> list[str]:
    """A Python program that runs without MPI, which makes these tests fast."""
    path = folder / "program.py"
    path.write_text(text)
    return [sys.executable, "-X", "faulthandler", str(path)]


@pytest.fixture
def witness() -> Iterator[dict[str, str]]:
    """An environment for one run; afterwards no process may have it any more."""
    value = uuid.uuid4().hex
    yield {"WITNESS": value}
    assert processes.leftovers(f"WITNESS={value}") == []


def test_output_code_and_environment(tmp_path: Path) -> None:
    text = """
import os, sys
print("out", os.environ["OMP_NUM_THREADS"], os.environ["COLOUR"], os.getcwd())
print("err", file=sys.stderr)
sys.exit(3)
"""
    completed = launcher.run(program(tmp_path, text), ranks=2, env={"COLOUR": "blue"}, cwd=tmp_path)
    assert completed.returncode == 3
    assert f"out 1 blue {tmp_path}\n" in completed.stdout
    assert "err\n" in completed.stderr
    assert 0 < completed.seconds < 30
    with pytest.raises(AssertionError, match="(?s)mpiexec returned 3.*out 1 blue.*err"):
        completed.require_success()


def test_output_larger_than_a_pipe(tmp_path: Path) -> None:
    completed = launcher.run(program(tmp_path, "print('x' * 1_000_000)"), ranks=2).require_success()
    assert completed.stdout.count("x") == 2_000_000


def test_clock(tmp_path: Path, witness: dict[str, str]) -> None:
    text = """
import time
print("before", flush=True)
def stuck():
    time.sleep(600)
stuck()
"""
    started = time.monotonic()
    with pytest.raises(launcher.RunFailed) as caught:
        launcher.run(program(tmp_path, text), ranks=2, timeout=2.0, env=witness)
    assert time.monotonic() - started < 15
    assert "not done after 2 s" in str(caught.value)
    assert "before" in str(caught.value)
    version = subprocess.run([launcher.find_mpiexec(), "--version"], capture_output=True, text=True).stdout
    if "HYDRA" in version:
        pytest.skip(
            "the clock works, but Hydra ends with the first rank that aborts, before it has passed on the stacks"
        )
    assert "in stuck" in str(caught.value)  # the ranks show where they were


def test_clock_with_ranks_that_cannot_be_terminated(tmp_path: Path, witness: dict[str, str]) -> None:
    text = """
import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGABRT):
    signal.signal(number, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("before", flush=True)
time.sleep(600)
"""
    with pytest.raises(launcher.RunFailed, match="before"):
        launcher.run(program(tmp_path, text), ranks=2, timeout=2.0, env=witness)


def test_a_process_left_behind_is_an_error(
    tmp_path: Path, witness: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "GRACE", 0.3)
    text = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True,
                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("parent done")
"""
    with pytest.raises(launcher.RunFailed, match="(?s)mpiexec returned and left .*sleep.*parent done"):
        launcher.run(program(tmp_path, text), ranks=1, env=witness)


def test_error_in_one_rank_ends_all(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "from mpi4py import MPI\n"
        "if MPI.COMM_WORLD.rank == 1:\n"
        "    raise RuntimeError('of rank 1')\n"
        "MPI.COMM_WORLD.recv()\n"
    )
    completed = launcher.run(launcher.python_program(path), ranks=3, timeout=30)
    assert completed.returncode != 0
    assert "RuntimeError: of rank 1" in completed.stderr


def test_missing_mpiexec(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        launcher.run(program(tmp_path, ""), ranks=1, mpiexec=str(tmp_path / "mpiexec"))
