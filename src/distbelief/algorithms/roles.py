"""Roles are what ranks are; a rank may carry more than one."""

from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """Which partition of which replica a rank is."""

    replica: int
    partition: int


@dataclass(frozen=True)
class Roles:
    """The rank of the coordinator, of every shard, and of every replica."""

    coordinator: int
    shards: list[int]
    replicas: list[int]
    """Of a replica that is cut over several ranks: its head, the rank of partition 0."""
    cut: list[list[int]] | None = None
    """The ranks of each replica, partition by partition; None: one each."""

    @property
    def ranks(self) -> list[list[int]]:
        """The ranks of each replica, partition by partition."""
        return [[rank] for rank in self.replicas] if self.cut is None else self.cut

    @property
    def partitions(self) -> int:
        """Ranks of one replica."""
        return 1 if self.cut is None else len(self.cut[0])

    def place(self, rank: int) -> Place | None:
        """Where in a replica `rank` is; None if in none."""
        for replica, ranks in enumerate(self.ranks):
            if rank in ranks:
                return Place(replica, ranks.index(rank))
        return None
