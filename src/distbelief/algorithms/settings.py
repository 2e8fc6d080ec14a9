"""The settings of the training procedures, as they stand in a configuration."""

from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Procedure = Literal["downpour", "sandblaster", "synchronous"]


class Downpour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Downpour SGD (Dean et al. 2012, section 4.1)."""

    n_fetch: Count = 1
    """Steps from one fetch of the parameters to the next."""
    n_push: Count = 1
    """Steps from one push of the accrued gradient to the next."""
    warmstart: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Steps during which replica 0 trains alone."""
    ramp: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Further steps of replica 0 over which the others start, one after the other; 0: all at once."""
    overlap: bool = True
    """Compute while a fetch is under way. If false, wait for it: fresher parameters, for the price of its latency."""
    local_rate: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """The rate of a replica's local step; None: the rule's rate."""
    lean: bool = False
    """Give the memory of a gradient back as it is sent, for networks that leave no room for it beside them. It is then
    not there any more for a sum over several steps, or for a local step."""

    def __post_init__(self):
        if self.lean and (self.n_push != 1 or self.local_rate != 0):
            raise ValueError("Expected `n_push` = 1 and `local_rate` = 0 with `lean`")


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When training ends: whichever comes first."""

    epochs: Count | None = None
    """Passes of every replica over its part of the data."""
    seconds: Seconds | None = None


class Evaluate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often the parameters are tried on the held-out examples. They are tried at the beginning and the end too."""

    every_examples: Count | None = None
    """Examples that all replicas together have trained on, from one evaluation to the next."""
