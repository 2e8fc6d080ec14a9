"""Downpour SGD, as it is launched: roles for the ranks, and what they need."""

from distbelief.algorithms import downpour
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.roles import Roles
from distbelief.comm.endpoint import Endpoint
from distbelief.errors import UserError
from distbelief.launch.job import Job
from distbelief.launch.roles import assign


def check(job: Job, rank: int, ranks: int) -> None:
    shards = job.settings.server.shards
    roles = _roles(job, ranks)
    if rank in roles.replicas:
        job.try_out(roles.replicas.index(rank), len(roles.replicas))
    if rank == 0:
        parameters = job.problem.model().layout.size
        if shards > parameters:
            raise UserError(f"server.shards: {shards} shards for {parameters} parameters, expected fewer")


def cast(job: Job, ranks: int) -> str:
    roles = _roles(job, ranks)
    shards, replicas = _count(roles.shards, "shard"), _count(roles.replicas, "replica")
    beside = "," if roles.coordinator not in roles.shards else " and"
    between = " beside" if job.settings.server.place == "beside" else ","
    examples = job.problem.training_examples
    return f"Downpour on {ranks} ranks: coordinator{beside} {shards}{between} {replicas}, {examples} examples"


def train(endpoint: Endpoint, job: Job, listener: Listener | None) -> Outcome:
    settings = job.settings
    return downpour.train(
        endpoint,
        _roles(job, endpoint.size),
        job.problem,
        settings.rule,
        settings.downpour,
        settings.stop,
        settings.evaluate,
        listener,
        job.timeout,
        settings.server,
    )


def _roles(job: Job, ranks: int) -> Roles:
    server = job.settings.server
    return assign(ranks, server.shards, server.place, server.coordinator)


def _count(things: list, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
