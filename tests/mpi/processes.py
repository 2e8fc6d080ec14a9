"""Finding and ending processes by a mark in their environment, however far they have moved from their parent.

A mark is one variable of the environment, as "NAME=value".
"""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple


class Leftover(NamedTuple):
    """A process that carries a mark."""

    pid: int
    command: str


def leftovers(mark: str) -> list[Leftover]:
    """The living processes, other than this one, that were started with `mark` in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append(Leftover(int(folder.name), command))
        except OSError:  # ended meanwhile, or somebody else's
            continue
    return found


def signal_all(processes: list[Leftover], number: signal.Signals) -> None:
    """Send a signal to each; those that have ended meanwhile are passed over."""
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue


def wait_until_gone(mark: str, seconds: float) -> list[Leftover]:
    """Give the processes time to end; returns those that are still there after `seconds`."""
    end = time.monotonic() + seconds
    while remaining := leftovers(mark):
        if time.monotonic() > end:
            return remaining
        time.sleep(0.02)
    return []


def kill_all(mark: str, seconds: float = 5.0) -> None:
    """SIGKILL until none is left: a process may have forked since the last look.

    Raises RuntimeError if some survive for `seconds`.
    """
    end = time.monotonic() + seconds
    while remaining := leftovers(mark):
        if time.monotonic() > end:
            raise RuntimeError(f"these processes survive SIGKILL: {remaining}")
        signal_all(remaining, signal.SIGKILL)
        time.sleep(0.02)
