"""The coordinator's ledger of one evaluation: which portion is where, and what counts. It sends nothing.

    unassigned -> at work (one replica, with backup copies several) -> accepted (of one replica alone)
               -> in a shipment (granted; its sum is on its way to all shards) -> committed

A portion counts if and only if it is in a committed shipment. What a replica that is given up had not committed
goes back to the beginning.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# Replicas that may be at one portion at the same time.
MOST_COPIES = 3


@dataclass
class Shipment:
    """Accepted portions of one replica, whose sum it may send to the shards as one."""

    replica: int
    portions: list[int]
    granted: float
    """The moment, in seconds."""
    missing: set[int]
    """Shards that do not hold it yet."""


@dataclass
class Verdict:
    """What is to be done about a finished portion."""

    accepted: bool
    losers: dict[int, float | None] = field(default_factory=dict)
    """Replicas that are to drop theirs, with the seconds that they were at it; None if it was in their queue."""


@dataclass
class Taken:
    """What a replica has been given up with."""

    shipments: list[int]
    """The numbers of those to abort."""
    revoked: list[int]
    """Portions that had been accepted."""
    at_work: list[int]
    """Portions that it is to drop."""


class Ledger:
    """All methods are Local, and none sends anything: the coordinator does what they return."""

    def __init__(
        self,
        runs: Sequence[Sequence[int]],
        shards: int,
        *,
        backup: bool = True,
        ship_every: int = 1,
        shipments: int = 1,
        first_shipment: int = 0,
    ):
        """`runs[r]`: the portions that replica r is to begin with, in its order; together all that there are.

        `ship_every`: accepted portions that make a shipment, 0 if none is needed for a portion to count;
        `shipments`: how many may be granted at a time; `first_shipment`: the number of the first one.
        """
        self._runs = [deque(run) for run in runs]  # by replica: what nobody is at yet
        self._returned: deque[int] = deque()
        self._portions = frozenset(portion for run in runs for portion in run)
        self._shards = range(shards)
        self._backup = backup
        self._ship_every = ship_every
        self._most_shipments = shipments
        self._working: list[dict[int, float]] = [{} for _ in runs]  # by replica: its portions, and since when
        self._attempts: dict[int, set[int]] = {}  # by portion at work: the replicas at it
        self._accepted: dict[int, list[int]] = {}  # by replica: not in a shipment yet
        self._losses: dict[int, float] = {}  # of the portions that are accepted, or further
        self._committed: set[int] = set()
        self._backups: set[tuple[int, int]] = set()  # (portion, replica)
        self.unassigned = len(self._portions)
        """Portions that nobody is at."""
        self.shipments: dict[int, Shipment] = {}
        """Granted and neither committed nor aborted, by number."""
        self.next_shipment = first_shipment
        """The number of the next shipment: none is ever used twice."""
        self.backups_issued = 0
        self.backups_won = 0
        self.counted = [0] * len(runs)
        """By replica: its committed portions."""

    @property
    def complete(self) -> bool:
        """Every portion counts."""
        return len(self._committed) == len(self._portions)

    @property
    def loss(self) -> float:
        """The sum of the losses of the portions accepted so far, rounded once."""
        return math.fsum(self._losses.values())

    def working(self, replica: int) -> dict[int, float]:
        """The portions that `replica` is at or has in its queue, in order, and since when."""
        return self._working[replica]

    def owes(self, replica: int) -> bool:
        """Whether anything is expected of `replica`."""
        return bool(self._working[replica]) or any(s.replica == replica for s in self.shipments.values())

    def assign(self, replica: int, now: float, remaining: Callable[[int, int], float]) -> int | None:
        """The next portion for `replica`; None if there is nothing for it to do.

        Its own run first; then what has come back; then the last of the longest remaining run; then, if it has
        nothing else to do, a backup copy of what would otherwise be there last.
        `remaining(replica, portions)`: the seconds that so many portions would take a replica.
        """
        if self.unassigned:
            portion = self._next_for(replica, remaining)
            self.unassigned -= 1
        else:
            portion = self._backup_for(replica, now, remaining)
            if portion is None:
                return None
            self.backups_issued += 1
            self._backups.add((portion, replica))
        self._working[replica][portion] = now
        self._attempts.setdefault(portion, set()).add(replica)
        return portion

    def report(self, replica: int, portion: int, loss: float, now: float) -> Verdict:
        """`replica` has finished `portion`, and may count it if it is the first.

        So may one that the portion had been taken from meanwhile, as long as nobody else has finished it.
        """
        assert portion in self._portions, f"portion {portion} is not of this evaluation"
        if portion in self._losses:
            self._leave(replica, portion, now)
            return Verdict(False)
        if portion not in self._attempts:  # it waits to be given to another
            self._returned.remove(portion)
            self.unassigned -= 1
        losers = {}
        for other in sorted(self._attempts.get(portion, set()) - {replica}):
            first, since = next(iter(self._working[other].items()))
            losers[other] = now - since if first == portion else None
        for each in (replica, *losers):
            self._leave(each, portion, now)
        self._losses[portion] = loss
        self.backups_won += (portion, replica) in self._backups
        if self._ship_every:
            self._accepted.setdefault(replica, []).append(portion)
        else:
            self._count(replica, [portion])
        return Verdict(True, losers)

    def grant(self, now: float) -> tuple[int, Shipment] | None:
        """A shipment that is due and may be granted, with its number; None if there is none.

        Due is a replica with enough portions; when nothing is left to hand out, also one from which no other portion
        will come, or none that is not in other hands, too. Each ships one sum at a time.
        """
        if len(self.shipments) >= self._most_shipments:
            return None
        shipping = {shipment.replica for shipment in self.shipments.values()}
        due = [r for r in self._accepted if r not in shipping and self._due(r)]
        if not due:
            return None
        replica = max(due, key=lambda r: len(self._accepted[r]))
        shipment = Shipment(replica, self._accepted.pop(replica), now, set(self._shards))
        number = self.next_shipment
        self.shipments[number] = shipment
        self.next_shipment += 1
        return number, shipment

    def held(self, number: int, shard: int) -> Shipment | None:
        """`shard` holds a shipment. Returns it, now counted, if it was the last one to: it is to be committed."""
        shipment = self.shipments.get(number)
        if shipment is None:  # aborted meanwhile
            return None
        shipment.missing.discard(shard)
        if shipment.missing:
            return None
        del self.shipments[number]
        self._count(shipment.replica, shipment.portions)
        return shipment

    def give_up(self, replica: int, now: float) -> Taken:
        """Expect nothing more of `replica`: what it had not committed goes to others."""
        aborted = [number for number, shipment in self.shipments.items() if shipment.replica == replica]
        revoked = self._accepted.pop(replica, []) + [p for n in aborted for p in self.shipments.pop(n).portions]
        for portion in revoked:
            del self._losses[portion]
        at_work = list(self._working[replica])
        for portion in at_work:
            self._leave(replica, portion, now)
        returned = revoked + [p for p in at_work if p not in self._attempts]
        self._returned.extend(sorted(returned))
        self.unassigned += len(returned)
        return Taken(aborted, revoked, at_work)

    def _due(self, replica: int) -> bool:
        if len(self._accepted[replica]) >= self._ship_every:
            return True
        return not self.unassigned and all(len(self._attempts[p]) > 1 for p in self._working[replica])

    def _next_for(self, replica: int, remaining: Callable[[int, int], float]) -> int:
        if self._runs[replica]:
            return self._runs[replica].popleft()
        if self._returned:
            return self._returned.popleft()
        longest = max(
            (r for r, run in enumerate(self._runs) if run),
            key=lambda r: remaining(r, len(self._runs[r]) + len(self._working[r])),
        )
        return self._runs[longest].pop()

    def _backup_for(self, replica: int, now: float, remaining: Callable[[int, int], float]) -> int | None:
        """Of the portions at work elsewhere: the least tried, then the one that would be there last."""
        if not self._backup or self._working[replica]:
            return None
        choice = None
        for other, working in enumerate(self._working):
            began = next(iter(working.values()), now)
            for place, portion in enumerate(working, start=1):
                copies = len(self._attempts[portion])
                urgency = (-copies, began + remaining(other, place), -portion)
                if copies < MOST_COPIES and (choice is None or urgency > choice[0]):
                    choice = urgency, portion
        return None if choice is None else choice[1]

    def _leave(self, replica: int, portion: int, now: float) -> None:
        """`replica` is no longer at `portion`; the next in its queue begins now."""
        working = self._working[replica]
        if portion not in working:
            return
        del working[portion]
        if working:
            working[next(iter(working))] = now
        self._attempts[portion].discard(replica)
        if not self._attempts[portion]:
            del self._attempts[portion]

    def _count(self, replica: int, portions: list[int]) -> None:
        assert self._committed.isdisjoint(portions), f"{portions} of replica {replica} would count twice"
        self._committed.update(portions)
        self.counted[replica] += len(portions)
