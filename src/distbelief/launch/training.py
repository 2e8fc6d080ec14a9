"""From whatever is to be trained and however many ranks there are to a finished run."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from distbelief.algorithms import downpour, serial
from distbelief.algorithms.model import Problem
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.scoring import score
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.endpoint import Endpoint
from distbelief.config import load
from distbelief.errors import UserError
from distbelief.experiment import Experiment
from distbelief.launch.agreement import Elsewhere, agree, expect_same
from distbelief.launch.crowding import crowding
from distbelief.launch.roles import assign
from distbelief.launch.world import world
from distbelief.optim import Rule
from distbelief.processor import prepare
from distbelief.report import PARAMETERS, Forwarder, Reporter, RunFolder, mean
from distbelief.server import Server


class Settings(Protocol):
    """How to train; a struct, as its run's folder keeps it. A `config.Config` is one."""

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


def train(path: str, settings: list[str]) -> int:
    """Train as the configuration in `path`, changed by `settings`, says: `distbelief train`. Collective over all ranks.

    Returns the exit code. Raises UserError as `run` does.
    """

    def describe() -> Job:
        config = load(path, settings)
        prepare(config.run.threads, config.run.blas)
        experiment = Experiment(config)
        return Job(
            experiment,
            config,
            config.run.timeout,
            try_out=experiment.batches,
            folder=RunFolder(config.run.folder),
            overwrite=config.run.overwrite,
        )

    run(describe)
    return 0


def run(describe: Callable[[], Job], listener: Listener | None = None) -> Outcome:
    """Train what `describe` returns. Collective over all ranks of the job.

    One rank trains serially, more train by Downpour. `listener` hears of it on rank 0; without one, lines are printed.
    Rank 0 raises UserError for whatever the user can mend, the others then raise Elsewhere.
    """
    endpoint = world()
    if endpoint is None or endpoint.size == 1:
        job = _prepare(describe, 0, 1)
        _warn(crowding(endpoint), listener)
        return _train_serially(job, listener)
    job = agree(endpoint, lambda: _prepare(describe, endpoint.rank, endpoint.size))
    expect_same(endpoint, _summary(job))
    _warn(crowding(endpoint), listener)
    return _train_by_downpour(endpoint, job, listener)


def _prepare(describe: Callable[[], Job], rank: int, ranks: int) -> Job:
    """Find everything that may be wrong before any rank begins to work. Changes nothing."""
    job = describe()
    shards = job.settings.server.shards
    roles = assign(ranks, shards)
    if ranks == 1:
        job.try_out(0, 1)
    elif rank in roles.replicas:
        job.try_out(roles.replicas.index(rank), len(roles.replicas))
    if rank == 0:
        if job.folder is not None:
            job.folder.check(job.overwrite)
        parameters = job.problem.model().layout.size
        if shards > parameters:
            raise UserError(f"server.shards: {shards} shards for {parameters} parameters, expected fewer")
    return job


def _warn(words: str | None, listener: Listener | None) -> None:
    if words is not None and listener is None:
        print(words, flush=True)


def _summary(job: Job) -> str:
    """What all ranks have to have in common."""
    model = job.problem.model()
    shapes = ", ".join(f"{name} {shape}" for name, shape in model.layout.shapes.items())
    return f"{job.problem.training_examples} training examples for a model of {model.dtype} tensors {shapes}"


def _train_serially(job: Job, listener: Listener | None) -> Outcome:
    reporter = _begin(job, listener)
    reporter.say(f"serial training on one rank, {job.problem.training_examples} examples")
    settings = job.settings
    outcome = serial.train(
        job.problem,
        settings.rule,
        settings.stop,
        settings.evaluate,
        reporter,
        schedule=settings.server.schedule,
    )
    _finish(job, reporter, outcome)
    return outcome


def _train_by_downpour(endpoint: Endpoint, job: Job, listener: Listener | None) -> Outcome:
    settings = job.settings
    roles = assign(endpoint.size, settings.server.shards)
    reporter = None
    if endpoint.rank == roles.coordinator:
        reporter = _begin(job, listener)
        reporter.say(_cast(roles, endpoint.size, job.problem.training_examples))
    outcome = downpour.train(
        endpoint,
        roles,
        job.problem,
        settings.rule,
        settings.downpour,
        settings.stop,
        settings.evaluate,
        reporter,
        job.timeout,
        settings.server,
    )
    if reporter is not None:
        _finish(job, reporter, outcome)
    elif outcome.failed:
        raise Elsewhere("training has failed")
    return outcome


def _begin(job: Job, listener: Listener | None) -> Reporter | Forwarder:
    if job.folder is not None:
        job.folder.begin(job.settings)
    if listener is not None:
        return Forwarder(job.folder, listener)
    stop = job.settings.stop
    epochs = math.inf if stop.epochs is None else stop.epochs
    return Reporter(job.folder, epochs * job.problem.training_examples, stop.seconds or math.inf)


def _finish(job: Job, reporter: Reporter | Forwarder, outcome: Outcome) -> None:
    """Keep the parameters, try them on the test examples, and say how it went. Raises UserError if it failed."""
    evaluation = outcome.evaluation
    result = {"complete": not outcome.failed}
    if evaluation is not None:
        result |= {"held_out_accuracy": evaluation.accuracy, "held_out_loss": evaluation.loss}
    test = None if outcome.failed else job.problem.test()
    if test is not None:
        loss, accuracy = score(job.problem.model(), outcome.parameters, test)
        result |= {"test_accuracy": accuracy, "test_loss": loss}
    if evaluation is not None:
        result |= {
            "examples": evaluation.examples,
            "seconds": evaluation.time,
            "examples_per_s": evaluation.examples_per_s,
            "staleness": evaluation.staleness,
        }
    if job.folder is not None:
        job.folder.end(outcome, result)
    if outcome.failed:
        raise UserError(f"{outcome.fault}{_kept(job, outcome)}")
    if test is not None:
        reporter.say(f"test accuracy  {accuracy:.4f}  (loss {loss:.4f})")
    reporter.say(f"examples/s     {evaluation.examples_per_s:.0f}  ({evaluation.examples} in {evaluation.time:.1f} s)")
    if evaluation.staleness:
        reporter.say(f"mean staleness {mean(evaluation.staleness):.2f}  (largest {max(evaluation.staleness_max)})")
    if job.folder is not None:
        reporter.say(f"run files      {job.folder.path}")


def _kept(job: Job, outcome: Outcome) -> str:
    """Which parameters a failed run has left."""
    if job.folder is None:
        return ""
    examples = outcome.evaluation and outcome.evaluation.examples
    when = "that training began with" if examples is None else f"of the evaluation at {examples} examples"
    return f"; kept the parameters {when} in {job.folder.path / PARAMETERS}"


def _cast(roles: Roles, ranks: int, examples: int) -> str:
    shards, replicas = _count(roles.shards, "shard"), _count(roles.replicas, "replica")
    return f"Downpour on {ranks} ranks: coordinator and {shards}, {replicas}, {examples} examples"


def _count(things: list, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
