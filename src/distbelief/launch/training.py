"""From whatever is to be trained and however many ranks there are to a finished run."""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence

from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.scoring import score
from distbelief.config import load
from distbelief.errors import UserError
from distbelief.experiment import Experiment
from distbelief.launch.agreement import agree, expect_same
from distbelief.launch.crowding import crowding
from distbelief.launch.ending import Alone, abort_at_exit, wait_to_be_ended
from distbelief.launch.job import Job
from distbelief.launch.lacking import lacking
from distbelief.launch.nodes import nodes_of
from distbelief.launch.procedures import chosen
from distbelief.launch.world import world
from distbelief.processor import prepare
from distbelief.report import PARAMETERS, Forwarder, Reporter, RunFolder, mean


def train(path: str, settings: list[str]) -> int:
    """Train as the configuration in `path`, changed by `settings`, says: `distbelief train`. Collective over all ranks.

    Returns the exit code. Raises UserError as `run` does.
    """

    def describe() -> Job:
        config = load(path, settings)
        lack = prepare(config.run.threads, config.run.blas, config.network.dtype)
        experiment = Experiment(config)
        return Job(
            experiment,
            config,
            config.run.timeout,
            try_out=experiment.batches,
            folder=RunFolder(config.run.folder),
            overwrite=config.run.overwrite,
            partitions=config.network.partitions,
            lack=lack,
        )

    run(describe)
    return 0


def run(describe: Callable[[], Job], listener: Listener | None = None) -> Outcome:
    """Train what `describe` returns, by the procedure that it asks for. Collective over all ranks of the job.

    `listener` hears of it on rank 0; without one, lines are printed. Rank 0 raises UserError for whatever the user can
    mend, the others then raise Elsewhere; what a rank finds amid training it raises by itself, as Alone.
    """
    endpoint = world()
    if endpoint is None or endpoint.size == 1:
        rank, ranks = 0, 1
        job, _ = _summed_up(_prepare(describe, rank, ranks))
    else:
        rank, ranks = endpoint.rank, endpoint.size
        nodes = nodes_of(endpoint)
        job, summary = agree(endpoint, lambda: _summed_up(_prepare(describe, rank, ranks, nodes)))
        expect_same(endpoint, summary)
    _warn([*lacking(endpoint, job.lack), crowding(endpoint)], listener)
    procedure = chosen(job, ranks)
    reporter = None
    try:
        if rank == 0:
            reporter = _begin(job, listener, *procedure.goal(job))
            reporter.say(procedure.cast(job, ranks))
        outcome = procedure.train(endpoint, job, reporter)
    except UserError as error:  # of a user's model, in the midst of it, or of a full disk
        if ranks == 1:
            raise
        raise Alone(f"rank {rank}: {error}") from error

    def finish() -> None:
        if reporter is not None:
            _finish(job, reporter, outcome)

    if outcome.rank_missing:
        if reporter is None:
            wait_to_be_ended()
        reporter.warned("not all ranks answered at the end; they are ended with the program")
        abort_at_exit()
        finish()
    elif ranks == 1:
        finish()
    else:
        # No rank is in MPI's finalisation while rank 0 may still fail and end all. What it does takes what it takes.
        agree(endpoint, finish, math.inf)
    return outcome


def _prepare(describe: Callable[[], Job], rank: int, ranks: int, nodes: list[int] | None = None) -> Job:
    """Find everything that may be wrong before any rank begins to work. Changes nothing."""
    job = dataclasses.replace(describe(), nodes=nodes)
    chosen(job, ranks).check(job, rank, ranks)
    if rank == 0 and job.folder is not None:
        job.folder.check(job.overwrite)
    return job


def _warn(lines: Sequence[str | None], listener: Listener | None) -> None:
    for words in lines:
        if words is not None and listener is None:
            print(f"distbelief: {words}", file=sys.stderr, flush=True)


def _summed_up(job: Job) -> tuple[Job, str]:
    """The job, and what all ranks have to have in common. Raises UserError if there is no memory for the model."""
    model = job.problem.model()
    shapes = ", ".join(f"{name} {shape}" for name, shape in model.layout.shapes.items())
    return job, f"{job.problem.training_examples} training examples for a model of {model.dtype} tensors {shapes}"


def _begin(job: Job, listener: Listener | None, examples: float, seconds: float) -> Reporter | Forwarder:
    if job.folder is not None:
        job.folder.begin(job.settings)
    if listener is not None:
        return Forwarder(job.folder, listener)
    return Reporter(job.folder, examples, seconds)


def _finish(job: Job, reporter: Reporter | Forwarder, outcome: Outcome) -> None:
    """Keep the parameters, try them on the test examples, and say how it went. Raises UserError if it failed."""
    evaluation = outcome.evaluation
    result = {"complete": not outcome.failed}
    if evaluation is not None:
        result |= {"held_out_accuracy": evaluation.accuracy, "held_out_loss": evaluation.loss}
    test = outcome.test_score
    if test is None and not outcome.failed and (examples := job.problem.test()) is not None:
        test = score(job.problem.model(), outcome.parameters, examples)
    if test is not None:
        result |= {"test_accuracy": test[1], "test_loss": test[0]}
    if evaluation is not None:
        result |= {
            "examples": evaluation.examples,
            "seconds": evaluation.time,
            "examples_per_s": evaluation.examples_per_s,
            "staleness": evaluation.staleness,
            "refused": evaluation.refused,
        }
    if outcome.reason:
        result["reason"] = outcome.reason
    if job.folder is not None:
        job.folder.end(outcome, result)
    if outcome.failed:
        raise UserError(f"{outcome.fault}{_kept(job, outcome)}")
    if test is not None:
        loss, accuracy = test
        accurate = "" if accuracy is None else f"accuracy  {accuracy:.4f}  "
        reporter.say(f"test {accurate}(loss {loss:.4f})")
    reporter.say(f"examples/s     {evaluation.examples_per_s:.0f}  ({evaluation.examples} in {evaluation.time:.1f} s)")
    if evaluation.staleness:
        reporter.say(f"mean staleness {mean(evaluation.staleness):.2f}  (largest {max(evaluation.staleness_max)})")
    if any(evaluation.refused):
        reporter.say(f"refused        {sum(evaluation.refused)}  (messages, by shard: {evaluation.refused})")
    if outcome.reason:
        reporter.say(f"ended by       {outcome.reason}, after {evaluation.step} steps")
    if job.folder is not None:
        reporter.say(f"run files      {job.folder.path}")


def _kept(job: Job, outcome: Outcome) -> str:
    """Which parameters a failed run has left."""
    if job.folder is None:
        return ""
    examples = outcome.evaluation and outcome.evaluation.examples
    when = "that training began with" if examples is None else f"of the evaluation at {examples} examples"
    return f"; kept the parameters {when} in {job.folder.path / PARAMETERS}"
