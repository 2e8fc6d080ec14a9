"""The settings of Sandblaster, as they stand in a configuration."""

import msgspec

from distbelief.algorithms.settings import Count


class Sharing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an evaluation is shared among the replicas (Dean et al. 2012, section 4.2)."""

    portion: Count = 1000
    """Examples in a portion: much less than the batch divided by the replicas."""
    ship_every: Count = 8
    """Portions whose gradients a replica adds up before it sends the sum to the shards."""
    shipments: Count = 4
    """Sums that may be on their way at a time; a shard has room for so many."""
    backup: bool = True
    """When nothing is left to hand out, give what is outstanding to free replicas, too: the first to be done counts."""
