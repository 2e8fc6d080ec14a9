"""Training from a script: any gradient-based model, under mpirun by Downpour, with plain python serially.

    from distbelief import Adagrad, Model, Stop, train
    outcome = train(MyModel(), (inputs, targets), rule=Adagrad(rate=0.1), stop=Stop(epochs=10))

docs/models.md tells how to write a model.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec

from distbelief.adapters.data import ArrayData, UserProblem
from distbelief.adapters.model import Model
from distbelief.adapters.trial import try_out
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.settings import Count, Downpour, Evaluate, Procedure, Seconds, Stop
from distbelief.config import missing
from distbelief.errors import UserError
from distbelief.explain import explain, plain, stray_number
from distbelief.launch.ending import end
from distbelief.launch.job import Job
from distbelief.launch.training import run
from distbelief.launch.world import promised_size
from distbelief.optim import Adagrad, FixedRate, Momentum, Rule
from distbelief.report import RunFolder
from distbelief.server.settings import Server

__all__ = [
    "Adagrad",
    "ArrayData",
    "Downpour",
    "Evaluate",
    "FixedRate",
    "Model",
    "Momentum",
    "Outcome",
    "Sandblaster",
    "Server",
    "Stop",
    "UserError",
    "train",
]


class Settings(msgspec.Struct, frozen=True):
    """What a script asks for beside its model and data: settings.toml in its run's folder."""

    procedure: Procedure
    rule: Rule | None
    stop: Stop | None
    downpour: Downpour
    sandblaster: Sandblaster
    server: Server
    evaluate: Evaluate
    batch: Count
    seed: Annotated[int, msgspec.Meta(ge=0)]
    timeout: Seconds


def train(
    model: Any,
    data: Any,
    *,
    rule: Rule | None = None,
    stop: Stop | None = None,
    procedure: Procedure = "downpour",
    downpour: Downpour = Downpour(),
    sandblaster: Sandblaster = Sandblaster(),
    server: Server = Server(),
    evaluate: Evaluate = Evaluate(),
    batch: int = 32,
    held_out: Any = None,
    seed: int = 0,
    folder: str | Path | None = None,
    overwrite: bool = False,
    listener: Listener | None = None,
    timeout: float = 300.0,
) -> Outcome:
    """Train `model` on `data`: on the ranks that an MPI launcher started, or serially on one.

    Collective over all ranks: each calls it with the same arguments. Rank 0 returns the parameters and their last
    evaluation, the others once it has; there `outcome.parameters` is None. If Sandblaster went on without a rank
    that fell silent, rank 0 alone returns, and all ranks end with its program.

    model: a `Model`, or whatever has its attributes; or a function or class that makes one.
    data: a tuple of arrays, example-first, whose batches are tuples of their rows `[n, ...]`; or whatever has a length
        and gives a batch for `data[rows]`, rows int64 `[n]`.
    procedure: "downpour"; "sandblaster" for batch methods (on one rank, too); "synchronous" for SGD with all-reduce.
    rule, downpour, sandblaster, server, evaluate: as in a configuration; `server` has the number of shards.
    stop: epochs, seconds, or both. Sandblaster needs neither rule nor stop.
    batch: examples in a minibatch of one replica.
    held_out: how many examples to evaluate on and not to train on (None: one in ten), or other data for that.
    seed: of the initial parameters, the held-out choice and the order of examples.
    folder: where to leave the run's files, if anywhere; one that holds a run is refused unless `overwrite`.
    listener: hears of progress and evaluations on rank 0, where otherwise lines are printed; of warnings, too, if
        it has a method `warned(words)`; otherwise they are told on stderr.
    timeout: seconds that a rank waits for another before the job ends.

    Bad input, a model that fails on a few examples before training, and a loss or gradient that stops being finite
    raise UserError, one line. On several ranks nobody would hear it: there rank 0 prints the line, and the
    program ends with exit code 2 on all ranks; a model that stops fitting what it declared is a line from the rank
    that meets it. Any other exception on one of several ranks is printed with its traceback and ends all of them.
    """

    def describe() -> Job:
        silent = [name for name in ("progress", "evaluated") if not callable(getattr(listener, name, None))]
        if listener is not None and silent:
            raise UserError(
                f"listener: a {type(listener).__name__} without a method {silent[0]}, "
                "expected progress(progress) and evaluated(evaluation)"
            )
        settings = _checked(
            Settings(procedure, rule, stop, downpour, sandblaster, server, evaluate, batch, seed, timeout)
        )
        problem = UserProblem(model, data, batch=settings.batch, held_out=held_out, seed=settings.seed)
        return Job(
            problem,
            settings,
            settings.timeout,
            try_out=lambda replica, replicas: try_out(problem, replica, replicas),
            folder=None if folder is None else RunFolder(folder),
            overwrite=overwrite,
        )

    try:
        return run(describe, listener)
    except Exception as error:
        if (promised_size() or 1) == 1:
            raise
        sys.exit(end(error))


def _checked(settings: Settings) -> Settings:
    """The settings as they are after a look at every type and limit, which structs made in Python have not had."""
    kinds = {
        "rule": Rule,
        "stop": Stop,
        "downpour": Downpour,
        "sandblaster": Sandblaster,
        "server": Server,
        "evaluate": Evaluate,
    }
    needless = ("rule", "stop") if settings.procedure == "sandblaster" else ()
    for name, kind in kinds.items():
        value = getattr(settings, name)
        if not (isinstance(value, kind) or value is None and name in needless):
            raise UserError(f"{name}: {value!r}, expected {_such_as(kind)}")
    try:
        table = msgspec.to_builtins(settings, enc_hook=plain)
        checked = msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        raise UserError(": ".join(explain(error, table, Settings))) from None
    if stray := stray_number(checked):
        raise UserError(f"{stray[0]}: expected a finite number, found {stray[1]}")
    if missing(checked.procedure, checked.rule, checked.stop):
        raise UserError("stop: expected Stop(epochs=...), Stop(seconds=...) or both")
    return checked


def _such_as(kind: Any) -> str:
    """The classes of which something is expected to be."""
    return " or ".join(f"{each.__name__}(...)" for each in getattr(kind, "__args__", (kind,)))
