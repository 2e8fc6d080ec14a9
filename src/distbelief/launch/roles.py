"""From N ranks to roles."""

from distbelief.algorithms.roles import Roles
from distbelief.errors import UserError


def assign(ranks: int, shards: int) -> Roles:
    """Shards on the first ranks, the coordinator beside shard 0, a replica on each rank that is left. Local.

    One rank trains serially and has no roles. Raises UserError if no rank is left for a replica.
    """
    if shards > ranks:
        raise UserError(f"server.shards: {shards}, expected at most {max(ranks - 1, 1)} with {ranks} ranks")
    if ranks > 1 and shards == ranks:
        raise UserError(f"server.shards: {shards} shards leave none of {ranks} ranks for a replica, expected fewer")
    return Roles(coordinator=0, shards=list(range(shards)), replicas=list(range(shards, ranks)))
