"""The sharded parameter server: placement, shards and their service, the client."""

from distbelief.server.client import Client, Fetch, Push
from distbelief.server.placement import Interval, Placement
from distbelief.server.service import Service
from distbelief.server.shard import Shard

__all__ = ["Client", "Fetch", "Interval", "Placement", "Push", "Service", "Shard"]
