"""What is to be trained and how, as one rank sees it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distbelief.algorithms.keeper import Keeper
from distbelief.algorithms.model import Problem
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.settings import Downpour, Evaluate, Procedure, Stop
from distbelief.optim import Rule
from distbelief.report import RunFolder
from distbelief.server import Server


class Settings(Protocol):
    """How to train; a struct, as its run's folder keeps it. A `config.Config` is one."""

    procedure: Procedure
    rule: Rule | None
    """Sandblaster needs none."""
    downpour: Downpour
    sandblaster: Sandblaster
    server: Server
    stop: Stop | None
    """Likewise."""
    evaluate: Evaluate


@dataclass(frozen=True)
class Job:
    """What is to be trained and how, as one rank sees it."""

    problem: Problem
    """With `training_examples`, and `test()`: batches for one evaluation at the end, or None."""
    settings: Settings
    timeout: float
    """Seconds that a rank waits for another."""
    try_out: Callable[[int, int], Any]
    """try_out(replica, replicas): raises UserError if that replica could not do its work."""
    folder: RunFolder | None = None
    overwrite: bool = False
    partitions: int = 1
    """Ranks of a replica."""
    nodes: Sequence[int] | None = None
    """Of each rank: which node it is on; None if they are all on one, or nobody knows."""
    lack: str | None = None
    """What this rank's processor lacks for the job, and what it does instead: one line (processor.prepare)."""

    @property
    def keeper(self) -> Keeper | None:
        """Takes parameters that no rank holds as a whole to the run's folder."""
        if self.folder is None:
            return None
        model = self.problem.model()
        return self.folder.keeper(model.layout, model.dtype)


def epochs_and_seconds(job: Job) -> tuple[float, float]:
    """The examples and the seconds after which training ends at the latest, as `stop` says; infinite if it does not."""
    stop = job.settings.stop
    return (stop.epochs or math.inf) * job.problem.training_examples, stop.seconds or math.inf
