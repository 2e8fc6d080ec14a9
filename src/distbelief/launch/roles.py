"""From N ranks to roles."""

from distbelief.algorithms.roles import Roles
from distbelief.errors import UserError
from distbelief.launch.job import Job
from distbelief.server.settings import Place, Server


def assign(ranks: int, shards: int, place: Place = "apart", coordinator: Place = "beside") -> Roles:
    """Roles for `ranks` ranks, of which the first is always the coordinator's. Local.

    `place`: shards on ranks of their own ("apart"), or on those of the first replicas ("beside"). `coordinator`: on a
    rank of its own, or beside whoever comes first. One rank trains serially and has no roles. Raises UserError if no
    rank is left for a replica, or a shard has no replica to be beside of.
    """
    first = 1 if coordinator == "apart" and ranks > 1 else 0
    left = ranks - first
    if place == "beside":
        if shards > max(left, 1):
            raise UserError(
                f"server.shards: {shards} shards beside the replicas on {ranks} ranks, expected at most {max(left, 1)}"
            )
        replicas = list(range(first, ranks)) if ranks > 1 else []
    else:
        if shards > left:
            raise UserError(f"server.shards: {shards}, expected at most {max(left - 1, 1)} with {ranks} ranks")
        if ranks > 1 and shards == left:
            raise UserError(f"server.shards: {shards} shards leave none of {ranks} ranks for a replica, expected fewer")
        replicas = list(range(first + shards, ranks))
    return Roles(coordinator=0, shards=list(range(first, first + shards)), replicas=replicas)


def assign_for(server: Server, ranks: int) -> Roles:
    """Roles as a configuration wants them; raises as `assign` does. Local."""
    return assign(ranks, server.shards, server.place, server.coordinator)


def expect_parameters(server: Server, job: Job) -> None:
    """Raises UserError if there are more shards than parameters. Local."""
    parameters = job.problem.model().layout.size
    if server.shards > parameters:
        raise UserError(f"server.shards: {server.shards} shards for {parameters} parameters, expected fewer")


def count_of(number: int, name: str) -> str:
    """So many of a thing, in words."""
    return f"{number} {name}{'' if number == 1 else 's'}"
