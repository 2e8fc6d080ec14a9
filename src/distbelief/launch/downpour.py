"""Downpour SGD, as it is launched: roles for the ranks, and what they need."""

from distbelief.algorithms import downpour
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.comm.endpoint import Endpoint
from distbelief.launch.job import Job
from distbelief.launch.job import epochs_and_seconds as goal  # noqa: F401
from distbelief.launch.roles import assign_for, count_of, expect_parameters


def check(job: Job, rank: int, ranks: int) -> None:
    roles = assign_for(job, ranks)
    if roles.cut is not None:
        job.problem.cut(roles.partitions)  # finds layers that cannot be cut
    if (place := roles.place(rank)) is not None:
        job.try_out(place.replica, len(roles.replicas))
    if rank == 0:
        expect_parameters(job.settings.server, job)


def cast(job: Job, ranks: int) -> str:
    roles = assign_for(job, ranks)
    shards, replicas = count_of(len(roles.shards), "shard"), count_of(len(roles.replicas), "replica")
    beside = "," if roles.coordinator not in roles.shards else " and"
    between = " beside" if job.settings.server.place == "beside" else ","
    if roles.cut is not None:
        replicas += f" of {roles.partitions} ranks each"
    examples = job.problem.training_examples
    return f"Downpour on {ranks} ranks: coordinator{beside} {shards}{between} {replicas}, {examples} examples"


def train(endpoint: Endpoint, job: Job, listener: Listener | None) -> Outcome:
    settings = job.settings
    return downpour.train(
        endpoint,
        assign_for(job, endpoint.size),
        job.problem,
        settings.rule,
        settings.downpour,
        settings.stop,
        settings.evaluate,
        listener,
        job.timeout,
        settings.server,
        job.keeper if endpoint.rank == 0 and job.partitions > 1 else None,
    )
