"""The settings of the parameter server, as they stand in a configuration."""

from typing import Annotated, Literal

import msgspec

from distbelief.optim import Constant, Schedule
from distbelief.server.staleness import Ignored, Staleness
from distbelief.server.wire import Wire

Place = Literal["apart", "beside"]


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sharded parameter server. Synchronous SGD has none: of these, it heeds the schedule alone."""

    shards: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How many ranks hold the parameters."""
    place: Place = "apart"
    """Shards on ranks of their own, or beside the first replicas, on the same ranks."""
    coordinator: Place = "beside"
    """The coordinator on a rank of its own, or beside whoever has the first rank."""
    schedule: Schedule = Constant()
    """A factor on the rule's rate, by the updates that a shard has applied."""
    staleness: Staleness = Ignored()
    """What is done about late gradients."""
    fetch_wire: Wire = "native"
    """What fetches read: the parameters, or a copy in bfloat16 that every update keeps in step."""
    push_wire: Wire = "native"
    """How gradients travel; in bfloat16, what rounding loses is carried over to the next push."""
