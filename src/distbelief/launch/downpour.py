"""Downpour SGD, as it is launched: roles for the ranks, and what they need."""

from distbelief.algorithms import downpour
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.comm.endpoint import Endpoint
from distbelief.errors import UserError
from distbelief.launch.job import Job
from distbelief.launch.roles import assign


def check(job: Job, rank: int, ranks: int) -> None:
    shards = job.settings.server.shards
    roles = assign(ranks, shards)
    if rank in roles.replicas:
        job.try_out(roles.replicas.index(rank), len(roles.replicas))
    if rank == 0:
        parameters = job.problem.model().layout.size
        if shards > parameters:
            raise UserError(f"server.shards: {shards} shards for {parameters} parameters, expected fewer")


def cast(job: Job, ranks: int) -> str:
    roles = assign(ranks, job.settings.server.shards)
    shards, replicas = _count(roles.shards, "shard"), _count(roles.replicas, "replica")
    return f"Downpour on {ranks} ranks: coordinator and {shards}, {replicas}, {job.problem.training_examples} examples"


def train(endpoint: Endpoint, job: Job, listener: Listener | None) -> Outcome:
    settings = job.settings
    return downpour.train(
        endpoint,
        assign(endpoint.size, settings.server.shards),
        job.problem,
        settings.rule,
        settings.downpour,
        settings.stop,
        settings.evaluate,
        listener,
        job.timeout,
        settings.server,
    )


def _count(things: list, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
