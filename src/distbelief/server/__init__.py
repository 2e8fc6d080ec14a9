"""The sharded parameter server: placement, shards and their service, the client."""

from distbelief.server.client import Client
from distbelief.server.fetch import Fetch
from distbelief.server.pieces import Piece
from distbelief.server.placement import Interval, Placement
from distbelief.server.push import Push
from distbelief.server.service import Service
from distbelief.server.settings import Server
from distbelief.server.shard import Shard
from distbelief.server.staleness import Bounded, Compensated, Ignored, Scaled, Staleness
from distbelief.server.wire import Wire

__all__ = [
    "Bounded",
    "Client",
    "Compensated",
    "Fetch",
    "Ignored",
    "Interval",
    "Piece",
    "Placement",
    "Push",
    "Scaled",
    "Server",
    "Service",
    "Shard",
    "Staleness",
    "Wire",
]
