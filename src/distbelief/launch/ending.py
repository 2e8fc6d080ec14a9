"""How a program on many ranks ends when something is wrong: all of it, and one rank says why."""

import atexit
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from distbelief.errors import UserError
from distbelief.launch.agreement import Elsewhere
from distbelief.launch.world import abort, promised_rank, promised_size, world

# What a launcher gets to pass on a rank's last words.
ABORT_SECONDS = 0.3


class Alone(UserError):
    """Found on one rank amid training, where the others wait for it and cannot agree. Its text names the rank."""


_code = 0  # what this program exits with, as far as it is known


def end(error: Exception, alone: bool = False) -> int:
    """Say what is wrong, see to it that all ranks end, and return the code that this one is to exit with.

    A UserError is one line on stderr from rank 0, and code 2; all ranks must come here with one (launch.agreement),
    or none but this one must be at work (`alone`). One that is Alone, or a MemoryError, is a line from this rank, and
    ends all ranks at once with code 2. Any other exception, on any rank, has its traceback printed and ends all ranks
    at once with code 1; under MPI these calls do not return.
    """
    global _code
    if isinstance(error, Alone):
        _end_all(f"distbelief: error: {error}\n", 2)
        return 2
    if isinstance(error, MemoryError):
        _end_all(f"distbelief: error: {_out_of_memory(error)}\n", 2)
        return 2
    if isinstance(error, UserError):
        _code = 2
        if promised_rank() == 0 and not isinstance(error, Elsewhere):
            print(f"distbelief: error: {error}", file=sys.stderr, flush=True)
        if not alone:
            _leave_together()
        return 2
    _end_all("".join(traceback.format_exception(error)), 1)
    return 1


def _out_of_memory(error: MemoryError) -> str:
    """Who it was, on which node, what for and where: NumPy says how much."""
    here = "" if promised_size() is None else f"rank {promised_rank()} on "
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{here}{platform.node()} has not enough memory: {str(error) or 'too much at once'} ({last.name} in "
        f"{Path(last.filename).name}, line {last.lineno}); `distbelief plan` tells what networks need"
    )


def _end_all(words: str, code: int) -> None:
    """Last words, in one piece and with a moment for the launcher to pass them on before it kills all ranks."""
    sys.stderr.write(words)
    sys.stderr.flush()
    if promised_size() is not None:
        time.sleep(ABORT_SECONDS)
        abort(code)


def abort_at_exit() -> None:
    """End all ranks when this program ends: MPI's finalisation would wait for those that never come. Local.

    The other ranks have to be in `wait_to_be_ended` by then.
    """

    def end_all() -> None:
        sys.stdout.flush()
        time.sleep(ABORT_SECONDS)
        abort(1 if hasattr(sys, "last_value") else _code)

    atexit.register(end_all)


def wait_to_be_ended() -> NoReturn:
    """Wait until rank 0 ends all ranks with itself, or the launcher does because rank 0 is gone. Local.

    In MPI's finalisation this rank would be in the way: an abort that meets other ranks there makes Open MPI's mpirun
    crash or hang (6 of 25 tries on five ranks; none of 25 where they sleep).
    """
    while True:
        time.sleep(60)


def _leave_together() -> None:
    """See to it that MPI's finalisation waits for all ranks: when one exits with a code, launchers kill the others."""
    if "distbelief.comm.mpi" in sys.modules:
        return
    try:
        world()
    except UserError:
        pass  # no MPI: it was the error, or comes on top of it
