"""Synchronous SGD, as it is launched: every rank is a replica."""

from distbelief.algorithms import synchronous
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.comm.endpoint import Endpoint
from distbelief.errors import UserError
from distbelief.launch.job import Job
from distbelief.launch.job import epochs_and_seconds as goal  # noqa: F401


def check(job: Job, rank: int, ranks: int) -> None:
    if job.partitions > 1:
        raise UserError(f"network.partitions: {job.partitions}, expected 1: synchronous SGD does not cut replicas")
    job.try_out(rank, ranks)


def cast(job: Job, ranks: int) -> str:
    return f"synchronous SGD on {ranks} ranks: {ranks} replicas, {job.problem.training_examples} examples"


def train(endpoint: Endpoint, job: Job, listener: Listener | None) -> Outcome:
    settings = job.settings
    return synchronous.train(
        endpoint,
        job.problem,
        settings.rule,
        settings.stop,
        settings.evaluate,
        listener,
        job.timeout,
        settings.server.schedule,
    )
