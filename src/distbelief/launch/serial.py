"""Serial SGD, as it is launched: one rank alone."""

from distbelief.algorithms import serial
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.comm.endpoint import Endpoint
from distbelief.launch.job import Job
from distbelief.launch.job import epochs_and_seconds as goal  # noqa: F401
from distbelief.launch.roles import assign_for


def check(job: Job, rank: int, ranks: int) -> None:
    if job.settings.procedure == "downpour":
        assign_for(job, ranks)
    job.try_out(0, 1)


def cast(job: Job, ranks: int) -> str:
    return f"serial training on one rank, {job.problem.training_examples} examples"


def train(endpoint: Endpoint | None, job: Job, listener: Listener | None) -> Outcome:
    settings = job.settings
    return serial.train(
        job.problem,
        settings.rule,
        settings.stop,
        settings.evaluate,
        listener,
        schedule=settings.server.schedule,
    )
