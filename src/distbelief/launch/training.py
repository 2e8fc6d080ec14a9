"""`distbelief train`: from a configuration and however many ranks there are to a finished run."""

import math

from distbelief.algorithms import downpour, serial
from distbelief.algorithms.progress import Outcome
from distbelief.algorithms.scoring import score
from distbelief.comm.endpoint import Endpoint
from distbelief.config import Config, load
from distbelief.errors import UserError
from distbelief.experiment import Experiment
from distbelief.launch.agreement import agree
from distbelief.launch.roles import assign
from distbelief.launch.world import world
from distbelief.report import PARAMETERS, Reporter, RunFolder, mean


def train(path: str, settings: list[str]) -> int:
    """Train as the configuration in `path`, changed by `settings`, says. Collective over all ranks of the job.

    One rank trains serially, more train by Downpour. Returns the exit code: 0, or 2 if the job was given up; rank 0
    raises UserError for whatever the user can mend.
    """
    endpoint = world()
    if endpoint is None or endpoint.size == 1:
        config, experiment = _prepare(path, settings, 0, 1)
        folder, reporter = _begin(config, experiment)
        reporter.say(f"serial training on one rank, {experiment.training_examples} examples")
        outcome = serial.train(experiment, config.rule, config.stop, config.evaluate, reporter)
        return _finish(config, experiment, folder, reporter, outcome)
    config, experiment = agree(endpoint, lambda: _prepare(path, settings, endpoint.rank, endpoint.size))
    return _downpour(endpoint, config, experiment)


def _prepare(path: str, settings: list[str], rank: int, ranks: int) -> tuple[Config, Experiment]:
    """Find everything that may be wrong before any rank begins to work. Changes nothing."""
    config = load(path, settings)
    roles = assign(ranks, config.server.shards)
    experiment = Experiment(config)
    if rank in roles.replicas:
        experiment.batches(roles.replicas.index(rank), len(roles.replicas))
    if rank == 0:
        RunFolder(config.run.folder).check(config.run.overwrite)
        parameters = experiment.model().layout.size
        if config.server.shards > parameters:
            raise UserError(f"server.shards: {config.server.shards} shards for {parameters} parameters, expected fewer")
    return config, experiment


def _begin(config: Config, experiment: Experiment) -> tuple[RunFolder, Reporter]:
    folder = RunFolder(config.run.folder)
    folder.begin(config)
    epochs = math.inf if config.stop.epochs is None else config.stop.epochs
    return folder, Reporter(folder, epochs * experiment.training_examples, config.stop.seconds or math.inf)


def _downpour(endpoint: Endpoint, config: Config, experiment: Experiment) -> int:
    roles = assign(endpoint.size, config.server.shards)
    folder, reporter = None, None
    if endpoint.rank == roles.coordinator:
        folder, reporter = _begin(config, experiment)
        reporter.say(
            f"Downpour on {endpoint.size} ranks: coordinator and {_count(roles.shards, 'shard')}, "
            f"{_count(roles.replicas, 'replica')}, {experiment.training_examples} examples"
        )
    outcome = downpour.train(
        endpoint,
        roles,
        experiment,
        config.rule,
        config.downpour,
        config.stop,
        config.evaluate,
        reporter,
        config.run.timeout,
        config.server,
    )
    if folder is None:
        return 2 if outcome.failed else 0
    return _finish(config, experiment, folder, reporter, outcome)


def _finish(config: Config, experiment: Experiment, folder: RunFolder, reporter: Reporter, outcome: Outcome) -> int:
    """Keep the parameters, try them on the test examples, and say how it went."""
    evaluation = outcome.evaluation
    result = {"complete": not outcome.failed}
    if evaluation is not None:
        result |= {"held_out_accuracy": evaluation.accuracy, "held_out_loss": evaluation.loss}
    test = None if outcome.failed else experiment.test()
    if test is not None:
        loss, accuracy = score(experiment.model(), outcome.parameters, test)
        result |= {"test_accuracy": accuracy, "test_loss": loss}
    if evaluation is not None:
        result |= {
            "examples": evaluation.examples,
            "seconds": evaluation.time,
            "examples_per_s": evaluation.examples_per_s,
            "staleness": evaluation.staleness,
        }
    folder.end(outcome, result)
    if outcome.failed:
        when = f"of the evaluation at {evaluation.examples} examples" if evaluation else "that training began with"
        raise UserError(f"{outcome.fault}; kept the parameters {when} in {folder.path / PARAMETERS}")
    if test is not None:
        reporter.say(f"test accuracy  {accuracy:.4f}  (loss {loss:.4f})")
    reporter.say(f"examples/s     {evaluation.examples_per_s:.0f}  ({evaluation.examples} in {evaluation.time:.1f} s)")
    if evaluation.staleness:
        reporter.say(f"mean staleness {mean(evaluation.staleness):.2f}  (largest {max(evaluation.staleness_max)})")
    reporter.say(f"run files      {folder.path}")
    return 0


def _count(things: list, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
