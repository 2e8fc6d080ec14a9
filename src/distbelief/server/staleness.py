"""What to do about staleness: nothing, shorten the step, correct the gradient, or hold fast replicas back."""

from typing import Annotated

import msgspec


class Ignored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="ignored"):
    """A late gradient is applied as it is (Dean et al. 2012)."""


class Scaled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="scaled"):
    """rate / max(staleness, 1): the rate divided by the staleness of each gradient (Zhang et al. 2015, eq. 5)."""


class Compensated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="compensated"):
    """gradient + strength gradient^2 (parameters now - parameters as fetched): DC-ASGD (Zheng et al. 2017, eq. 10).

    Shards keep a copy of their parameters for every replica, taken when it says that it fetches; as fetches are
    one-sided, what it read may differ from the copy by the updates of that moment.
    """

    strength: Annotated[float, msgspec.Meta(gt=0)] = 0.04


class Bounded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="bounded"):
    """A replica more than `steps` steps ahead of the slowest waits for it: stale synchronous parallel (Ho et al. 2013).

    Steps count from the end of replica 0's time alone; a replica that starts later counts as not behind.
    """

    steps: Annotated[int, msgspec.Meta(ge=0)]


Staleness = Ignored | Scaled | Compensated | Bounded
