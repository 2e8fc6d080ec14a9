"""Who is to begin with which portions: as many as a replica is fast, and those that it had the last time."""

import itertools
from collections.abc import Mapping, Sequence


class Pace:
    """What the coordinator knows of the replicas' speed."""

    def __init__(self, replicas: int):
        self._speeds: list[float | None] = [None] * replicas  # examples per second

    def learn(self, replica: int, examples: int, seconds: float) -> None:
        """`replica` has taken `seconds` for `examples`; half of what was known is forgotten."""
        speed, known = examples / max(seconds, 1e-9), self._speeds[replica]
        self._speeds[replica] = speed if known is None else (speed + known) / 2

    def limit(self, replica: int, examples: int, seconds: float) -> None:
        """`replica` has not been through with `examples` after `seconds`."""
        if seconds > 0:
            speed = examples / seconds
            known = self._speeds[replica]
            self._speeds[replica] = speed if known is None else min(speed, known)

    def seconds(self, replica: int, examples: float) -> float:
        """How long `replica` takes for `examples`: as long as any, if nothing is known of it."""
        known = self._speeds[replica]
        slowest = min((speed for speed in self._speeds if speed is not None), default=1.0)
        return examples / (slowest if known is None else known)

    def shares(self) -> list[float]:
        """Relative speeds; a replica of which nothing is known counts as an average one."""
        known = [speed for speed in self._speeds if speed is not None]
        average = sum(known) / len(known) if known else 1.0
        return [average if speed is None else speed for speed in self._speeds]


def runs(portions: Sequence[int], shares: Sequence[float], owners: Mapping[int, int]) -> list[list[int]]:
    """For each replica the portions to begin with: its part of `portions` by `shares`, in their order.

    owners: who had a portion the last time, and gets it again if its part is large enough. The others are dealt out
    in contiguous runs, so that a replica reads neighbouring examples. A share of 0 gets nothing.
    """
    sums = list(itertools.accumulate(shares, initial=0.0))
    bounds = [round(len(portions) * some / sums[-1]) for some in sums]
    room = [last - first for first, last in zip(bounds, bounds[1:], strict=False)]
    made: list[list[int]] = [[] for _ in shares]
    orphans = []
    for portion in portions:
        owner = owners.get(portion)
        if owner is not None and len(made[owner]) < room[owner]:
            made[owner].append(portion)
        else:
            orphans.append(portion)
    orphans.reverse()
    for replica, run in enumerate(made):
        while len(run) < room[replica]:
            run.append(orphans.pop())
    assert not orphans
    return [sorted(run) for run in made]
