"""The training procedures by name. To add one: a module like `launch.downpour`, its name here and in settings."""

from typing import Protocol

from distbelief.algorithms.progress import Listener, Outcome
from distbelief.comm.endpoint import Endpoint
from distbelief.launch import downpour, sandblaster, serial, synchronous
from distbelief.launch.job import Job


class Procedure(Protocol):
    """A procedure on so many ranks; a module."""

    def check(self, job: Job, rank: int, ranks: int) -> None:
        """Find whatever may be wrong, before any rank begins to work. Local; raises UserError."""
        ...

    def cast(self, job: Job, ranks: int) -> str:
        """One line: who does what. Local."""
        ...

    def goal(self, job: Job) -> tuple[float, float]:
        """The examples and the seconds after which training ends at the latest; infinite if not limited. Local."""
        ...

    def train(self, endpoint: Endpoint | None, job: Job, listener: Listener | None) -> Outcome:
        """Train to the end. Collective over the endpoint (None: this process alone); rank 0 has the listener."""
        ...


TOGETHER: dict[str, Procedure] = {"downpour": downpour, "sandblaster": sandblaster, "synchronous": synchronous}
# What one rank alone does instead.
ALONE: dict[str, Procedure] = {"downpour": serial, "sandblaster": sandblaster, "synchronous": serial}


def chosen(job: Job, ranks: int) -> Procedure:
    """The procedure that `job` asks for, on so many ranks."""
    return (ALONE if ranks == 1 else TOGETHER)[job.settings.procedure]
