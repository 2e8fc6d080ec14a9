"""What is to be trained and how, as one rank sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from distbelief.algorithms.model import Problem
from distbelief.algorithms.settings import Downpour, Evaluate, Procedure, Stop
from distbelief.optim import Rule
from distbelief.report import RunFolder
from distbelief.server import Server


class Settings(Protocol):
    """How to train; a struct, as its run's folder keeps it. A `config.Config` is one."""

    procedure: Procedure
    rule: Rule
    downpour: Downpour
    server: Server
    stop: Stop
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
