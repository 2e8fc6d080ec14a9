"""Roles are what ranks are; a rank may carry more than one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Roles:
    """The rank of the coordinator, of every shard, and of every replica."""

    coordinator: int
    shards: list[int]
    replicas: list[int]
