"""The settings of Sandblaster, as they stand in a configuration."""

from typing import Annotated

import msgspec

from distbelief.algorithms.settings import Count
from distbelief.optim import LBFGS, BatchMethod, StopRules


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


Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]


class ChangingBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the data, and after so many steps another that overlaps it (Berahas, Nocedal, Takac 2016)."""

    fraction: Fraction = 0.25
    """Of the training examples, in whole portions."""
    overlap: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.5
    """Of the batch, that the next batch has, too."""
    every: Count = 1
    """Accepted steps on one batch."""


class Sandblaster(Sharing, frozen=True, forbid_unknown_fields=True):
    """Sandblaster: a batch method, its gradients by portions (Dean et al. 2012, section 4.2)."""

    method: BatchMethod = LBFGS()
    batch: ChangingBatch | None = None
    """None: all training examples."""
    stop: StopRules = StopRules()
    warmstart: str | None = None
    """A parameters file, or the folder of a run that has left one: where to begin. None: as the seed says."""
