"""What a user sees who has given bad input: exit code 2, one line, and nothing else changed."""

import itertools
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpi import launcher

# The frames that the mpiexec of Open MPI and of MPICH draw round their own words.
RULE = re.compile(r"[-=]{20,}")
# What Open MPI's runtime says of its own connections while it ends the ranks of a job.
RUNTIME = re.compile(r"\[[^]]*\] PMIX ERROR: |\[warn\] ")
WARNING = "distbelief: warning: "
SECONDS = 30.0
"""Far more than a refusal takes, for a machine that is busy with other things; a hang would last much longer."""


def run_command(
    argv: Sequence[str], ranks: int | None, cwd: str | Path, env: Mapping[str, str] | None = None
) -> launcher.Completed:
    """Run `argv` on `ranks` ranks under mpiexec, or as one process without it if `ranks` is None."""
    if ranks is not None:
        return launcher.run(argv, ranks=ranks, cwd=cwd, env=env)
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60)
    return launcher.Completed(done.returncode, done.stdout, done.stderr, 0.0)


def own_lines(stderr: str) -> list[str]:
    """The lines on stderr that are ours: not mpiexec's, and not those of its event loop while it ends the job.

    Nor warnings: that ranks outnumber cores, say, which depends on the machine.
    """
    ours, framed = [], False
    for line in stderr.splitlines():
        if RULE.fullmatch(line.strip()):
            framed = not framed
        elif line.strip() and not (framed or RUNTIME.match(line) or line.startswith(WARNING)):
            ours.append(line)
    return ours


def require_refusal(completed: launcher.Completed, *texts: str) -> str:
    """The one line, once it is sure that it is one line of ours, with all `texts`, and that the exit code is 2."""
    assert completed.returncode == 2, completed
    lines = own_lines(completed.stderr)
    assert len(lines) == 1 and lines[0].startswith("distbelief: error: "), completed
    assert "Traceback" not in completed.stdout
    assert completed.seconds < SECONDS
    for text in texts:
        assert text in lines[0]
    return lines[0]


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `folder` with its time of change and its bytes: equal if and only if nothing was written."""
    below = itertools.chain([folder], folder.rglob("*"))
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in sorted(below)
    }
