"""The settings of the parameter server, as they stand in a configuration."""

from typing import Annotated

import msgspec

from distbelief.optim import Constant, Schedule
from distbelief.server.staleness import Ignored, Staleness
from distbelief.server.wire import Wire


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sharded parameter server. Synchronous SGD has none: of these, it heeds the schedule alone."""

    shards: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Ranks 0 to shards-1 hold the parameters."""
    schedule: Schedule = Constant()
    """A factor on the rule's rate, by the updates that a shard has applied."""
    staleness: Staleness = Ignored()
    """What is done about late gradients."""
    fetch_wire: Wire = "native"
    """What fetches read: the parameters, or a copy in bfloat16 that every update keeps in step."""
    push_wire: Wire = "native"
    """How gradients travel; in bfloat16, what rounding loses is carried over to the next push."""
