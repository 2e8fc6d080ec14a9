"""From N ranks to roles."""

from collections.abc import Sequence

from distbelief.algorithms.roles import Roles
from distbelief.errors import UserError
from distbelief.launch.job import Job
from distbelief.server.settings import Place, Server


def assign(
    ranks: int,
    shards: int,
    place: Place = "apart",
    coordinator: Place = "beside",
    partitions: int = 1,
    nodes: Sequence[int] | None = None,
) -> Roles:
    """Roles for `ranks` ranks, of which the first is always the coordinator's. Local.

    `place`: shards on ranks of their own ("apart"), or on those of the first replicas ("beside"). `coordinator`: on a
    rank of its own, or beside whoever comes first. `partitions`: ranks of a replica; `nodes`: which node each rank is
    on: the ranks of a replica are kept together (`together`). One rank trains serially and has no roles. Raises
    UserError if no rank is left for a replica, ranks are left over, or a shard has no replica to be beside of.
    """
    first = 1 if coordinator == "apart" and ranks > 1 else 0
    left = ranks - first
    if place == "beside":
        if shards > max(left, 1):
            raise UserError(
                f"server.shards: {shards} shards beside the replicas on {ranks} ranks, expected at most {max(left, 1)}"
            )
        free = list(range(first, ranks)) if ranks > 1 else []
    else:
        if shards > left:
            raise UserError(f"server.shards: {shards}, expected at most {max(left - 1, 1)} with {ranks} ranks")
        if ranks > 1 and shards == left:
            raise UserError(f"server.shards: {shards} shards leave none of {ranks} ranks for a replica, expected fewer")
        free = list(range(first + shards, ranks))
    first_shards = list(range(first, first + shards))
    if partitions == 1 or not free:
        return Roles(coordinator=0, shards=first_shards, replicas=free)
    if len(free) % partitions:
        raise UserError(
            f"network.partitions: {ranks} ranks leave {len(free)} for replicas of {partitions} ranks each, expected a "
            f"multiple of {partitions}"
        )
    if nodes is not None and place == "apart":
        # Any ranks but the first may be shards: those that make no whole replica on their node.
        own = first_shards[:1] if first == 0 else []
        candidates = [rank for rank in range(1, ranks)]
        groups = together(candidates, len(free) // partitions, partitions, nodes)
        taken = {rank for group in groups for rank in group}
        shard_ranks = [*own, *(rank for rank in candidates if rank not in taken)]
    else:
        shard_ranks = first_shards
        groups = together(free, len(free) // partitions, partitions, nodes or [0] * ranks)
    return Roles(coordinator=0, shards=shard_ranks, replicas=[group[0] for group in groups], cut=groups)


def together(free: Sequence[int], replicas: int, partitions: int, nodes: Sequence[int]) -> list[list[int]]:
    """`replicas` groups of `partitions` of the `free` ranks, each on one node as far as that is possible. Local."""
    on = {}
    for rank in free:
        on.setdefault(nodes[rank], []).append(rank)
    groups, rest = [], []
    for ranks in on.values():
        # From the last: the first ranks are the likeliest to have other roles.
        while len(ranks) >= partitions and len(groups) < replicas:
            groups.append(ranks[-partitions:])
            del ranks[-partitions:]
        rest += ranks
    while len(groups) < replicas:  # over the bounds of nodes
        groups.append(rest[-partitions:])
        del rest[-partitions:]
    return sorted(groups)


def assign_for(job: Job, ranks: int) -> Roles:
    """Roles as the job's settings want them; raises as `assign` does. Local."""
    server = job.settings.server
    return assign(ranks, server.shards, server.place, server.coordinator, job.partitions, job.nodes)


def expect_parameters(server: Server, job: Job) -> None:
    """Raises UserError if there are more shards than parameters. Local."""
    parameters = job.problem.model().layout.size
    if server.shards > parameters:
        many = count_of(parameters, "parameter")
        raise UserError(f"server.shards: {server.shards} shards for {many}, expected fewer")


def count_of(number: int, name: str) -> str:
    """So many of a thing, in words."""
    return f"{number} {name}{'' if number == 1 else 's'}"
