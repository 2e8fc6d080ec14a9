"""Rate schedules: a factor on the rule's rate, by the number of updates that a shard has applied."""

import math
from typing import Annotated

import msgspec

Updates = Annotated[int, msgspec.Meta(ge=1)]


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="constant"):
    """1."""

    def factor(self, count: int) -> float:
        return 1.0


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="step"):
    """factor ^ floor(count / every): down by `factor` after every so many updates."""

    every: Updates
    by: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1

    def factor(self, count: int) -> float:
        return self.by ** (count // self.every)


class Inverse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="inverse"):
    """1 / (1 + count / half): half the rate after `half` updates (Robbins and Monro 1951)."""

    half: Updates

    def factor(self, count: int) -> float:
        return 1 / (1 + count / self.half)


class Cosine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="cosine"):
    """Half a cosine from 1 to 0 over `updates` updates, then 0 (Loshchilov and Hutter 2017)."""

    updates: Updates

    def factor(self, count: int) -> float:
        return 0.5 + 0.5 * math.cos(math.pi * min(count / self.updates, 1.0))


class Trapezoid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="trapezoid"):
    """Up to 1 in a line over `rise` updates, 1, and down to 0 in a line over the last `fall` of `updates`; then 0.

    A gradual warmup (Goyal et al. 2017) and a cooldown (Haegele et al. 2024).
    """

    updates: Updates
    rise: Updates = 1
    fall: Updates = 1

    def factor(self, count: int) -> float:
        return max(min(1.0, (count + 1) / self.rise, (self.updates - count) / self.fall), 0.0)


Schedule = Constant | Step | Inverse | Cosine | Trapezoid
