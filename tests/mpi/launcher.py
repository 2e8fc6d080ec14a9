"""Starts programs under mpiexec, with a clock; whatever happens, no process of theirs is left behind.

completed = run(python_program(path, "all"), ranks=4)
completed.require_success()
assert "all passed" in completed.stdout
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mpi.processes import kill_all, leftovers, signal_all, wait_until_gone

ENVIRONMENT = {
    # Tests run as root in containers, with more ranks than cores.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_mpi_yield_when_idle": "true",
    # In the PyPI wheel of Open MPI this component only prints errors.
    "OMPI_MCA_osc": "^ucx",
    # One BLAS thread per rank: the ranks are the parallelism.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

TOKEN_VARIABLE = "DISTBELIEF_TEST_RUN"
"""Carries a value of its own in each run: what a process of the run is known by."""

GRACE = 5.0
"""Seconds that the last processes may take to end once mpiexec has returned."""


@dataclass(frozen=True)
class Completed:
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float

    def require_success(self) -> "Completed":
        """Returns itself; raises AssertionError with all output unless the exit code is zero."""
        assert self.returncode == 0, f"mpiexec returned {self.returncode}\n{_output(self.stdout, self.stderr)}"
        return self


class RunFailed(RuntimeError):
    """A run outlived its clock or left processes behind. The text has its output so far."""


def find_mpiexec() -> str | None:
    """The mpiexec beside this Python, as wheels install it, or else the first on PATH; None if there is none."""
    # Not resolved: in a virtual environment the link's own folder is the one that counts.
    return shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")


def python_program(path: str | Path, *arguments: str) -> list[str]:
    """The command line of a Python program whose uncaught errors end all ranks, and which can show its stacks."""
    return [sys.executable, "-X", "faulthandler", "-m", "mpi4py", str(path), *arguments]


def run(
    argv: Sequence[str],
    *,
    ranks: int,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    mpiexec: str | None = None,
    options: Sequence[str] = (),
) -> Completed:
    """Run `mpiexec OPTIONS -n RANKS ARGV` to its end; works with the mpiexec of Open MPI and of MPICH.

    `env` is added to this process's environment and to ENVIRONMENT; `mpiexec` is `find_mpiexec()` unless given.
    After `timeout` seconds the Python ranks are made to print their stacks, and all processes are killed.
    Raises RunFailed then, and also if a process outlives mpiexec; FileNotFoundError if there is no mpiexec.
    """
    mpiexec = mpiexec or find_mpiexec()
    if mpiexec is None:
        raise FileNotFoundError("no mpiexec, neither beside this Python nor on PATH")
    token = uuid.uuid4().hex
    mark = f"{TOKEN_VARIABLE}={token}"
    # Files, for nobody empties a pipe while we wait. The folder also takes what Open MPI leaves when it is killed.
    with (
        tempfile.TemporaryDirectory(prefix="mpi-", ignore_cleanup_errors=True) as scratch,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        environment = {**os.environ, **ENVIRONMENT, "TMPDIR": scratch, **(env or {}), TOKEN_VARIABLE: token}
        command = [mpiexec, *options, "-n", str(ranks), *argv]
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                _stop(process, mark)
                raise RunFailed(f"not done after {timeout:g} s: {command}\n{_read_output(out, err)}") from None
            seconds = time.monotonic() - started
            if remaining := wait_until_gone(mark, GRACE):
                kill_all(mark)
                raise RunFailed(f"mpiexec returned and left {remaining}\n{_read_output(out, err)}")
            return Completed(process.returncode, _read(out), _read(err), seconds)
        finally:
            kill_all(mark)  # also when a test is interrupted


def _stop(process: subprocess.Popen, mark: str) -> None:
    """Have the ranks print their stacks, then kill all."""
    signal_all([rank for rank in leftovers(mark) if "faulthandler" in rank.command.split()], signal.SIGABRT)
    try:
        process.wait(1.0)  # mpiexec passes on what they print
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    kill_all(mark)
    process.wait()


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _read_output(out: IO[bytes], err: IO[bytes]) -> str:
    return _output(_read(out), _read(err))


def _output(stdout: str, stderr: str) -> str:
    return f"--- stdout\n{stdout}\n--- stderr\n{stderr}"
