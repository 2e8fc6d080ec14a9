"""The coordinator's hand on the replicas: deals out portions, judges what comes back, lets sums be shipped."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from distbelief.algorithms.sandblaster.accounts import Accounts
from distbelief.algorithms.sandblaster.affinity import Pace, runs
from distbelief.algorithms.sandblaster.ledger import Ledger
from distbelief.algorithms.sandblaster.messages import (
    ACCEPT,
    ASSIGN,
    DONE,
    DROP,
    GRANT,
    REJECT,
    RESULT,
    RESULT_RECORD,
    REVOKE,
    SCORES,
    WORK,
    WORK_RECORD,
)
from distbelief.algorithms.sandblaster.outbox import Outbox
from distbelief.algorithms.sandblaster.patience import Patience
from distbelief.algorithms.sandblaster.portions import Portions
from distbelief.algorithms.sandblaster.space import ShardedSpace
from distbelief.comm.endpoint import Endpoint, Envelope
from distbelief.server.messages import record
from distbelief.server.staging import HELD, HELD_RECORD

# Portions that a replica has at a time: the one it is at, and the next.
DEPTH = 2


class Dispatcher:
    """A part of the coordinator's loop (algorithms.loop). All methods are Local."""

    tags = (RESULT, HELD)
    finished = False

    def __init__(
        self,
        endpoint: Endpoint,
        replicas: Sequence[int],
        shards: Sequence[int],
        space: ShardedSpace,
        timeout: float,
        wait: Callable[[Callable[[], bool]], None],
        *,
        backup: bool = True,
        ship_every: int = 8,
        shipments: int = 4,
    ):
        """`replicas`, `shards`: their ranks; `wait(until)`: goes on serving on this rank until `until()`.

        `backup`, `ship_every`, `shipments`: see `Ledger`.
        """
        self._endpoint = endpoint
        self._replicas = list(replicas)
        self._shards = list(shards)
        self._space = space
        self._timeout = timeout
        self._wait = wait
        self._backup = backup
        self._ship_every = ship_every
        self._shipments = shipments
        self._pace = Pace(len(replicas))
        self._patience = Patience(endpoint.rank, replicas, timeout)
        # By kind of work, of its portions: who had them the last time.
        self._owners: dict[int, dict[int, int]] = {kind: {} for kind in (ASSIGN, *SCORES)}
        # Of the evaluation at hand, or the latest.
        self._evaluation = 0
        self._kind = ASSIGN
        self._portions = Portions(0, 1)
        self._point = -1
        self._ledger: Ledger | None = None
        self._broken = False  # a loss or gradient that is not finite
        self._right: dict[int, float] = {}  # by portion: the held-out examples that are classified rightly
        self._given_up = 0
        self._next_shipment = 0
        self._told = np.zeros(len(replicas), RESULT_RECORD)  # the latest of each replica
        self._calling: set[int] = set()  # replicas that are to say that they are there
        self._outbox = Outbox(endpoint, replicas, WORK)

    def evaluate(self, portions: Portions, batch: Sequence[int], point: int) -> tuple[float, Accounts]:
        """Have every portion of `batch` computed once: the sum of its gradients is added to GRADIENT on the shards.

        `point`: the number of the parameters that the shards expose. Returns the sum of the losses; NaN, and a
        gradient of no use, if a number that is not finite turned up. DeadlineExpired if no replica is left.
        """
        began = self._endpoint.clock()
        idle, first_shipment = self._told["seconds_idle"].sum(), self._next_shipment
        ledger = self._work_through(ASSIGN, portions, batch, point)
        accounts = Accounts(
            examples=sum(map(portions.count, batch)),
            seconds=self._endpoint.clock() - began,
            portions=ledger.counted,
            backups_issued=ledger.backups_issued,
            backups_won=ledger.backups_won,
            given_up=self._given_up,
            seconds_idle=float(self._told["seconds_idle"].sum() - idle),
            shipments=self._next_shipment - first_shipment,
            bytes_fetched=int(self._told["bytes_fetched"].sum()),
        )
        return math.nan if self._broken else ledger.loss, accounts

    def score(self, kind: int, portions: Portions, point: int) -> tuple[float, float | None]:
        """Mean loss and accuracy over the held-out or test examples (SCORE, TEST); no accuracy if the model does not
        count what is right."""
        self._right = {}
        ledger = self._work_through(kind, portions, range(len(portions)), point)
        if self._broken:
            return math.nan, None
        right = math.fsum(self._right.values())
        return ledger.loss / portions.examples, None if math.isnan(right) else right / portions.examples

    def roll_call(self) -> bool:
        """Whether every replica is still there: one that died may never have been missed."""
        self._calling = set(range(len(self._replicas)))
        for replica in sorted(self._calling):
            self._tell(replica, REVOKE)
        end = self._endpoint.clock() + self._timeout / 4
        self._wait(lambda: not self._calling or self._endpoint.clock() >= end)
        return not self._calling

    def take(self, envelope: Envelope) -> None:
        """Receive what a replica has done, or what a shard holds."""
        said = np.zeros(1, HELD_RECORD if envelope.tag == HELD else RESULT_RECORD)
        receiving = self._endpoint.receive(said, envelope.source, envelope.tag)
        self._endpoint.wait_all([receiving], self._timeout, f"a report of rank {envelope.source}")
        if envelope.tag == HELD:
            self._held(int(said["shipment"][0]), envelope.source)
        else:
            self._result(said[0])

    def work(self) -> float:
        """Give up whoever is silent for too long; returns the seconds until the next look."""
        ledger = self._ledger
        if ledger is None:
            return self._timeout / 16 if self._calling else math.inf
        now = self._endpoint.clock()
        for replica in self._patience.exhausted(ledger, now):
            self._patience.lost.add(replica)
            self._given_up += 1
            self._take_back(replica, now)
            self._tell(replica, REVOKE)
            self._feed(range(len(self._replicas)))
        return self._patience.rest(ledger, now)

    def _work_through(self, kind: int, portions: Portions, batch: Sequence[int], point: int) -> Ledger:
        """Have the portions of `batch` done by whom it may be; returns when all count, or one is not finite."""
        self._evaluation += 1
        self._kind, self._portions, self._point = kind, portions, point
        self._broken = False
        self._given_up = 0
        shares = [0.0 if r in self._patience.lost else share for r, share in enumerate(self._pace.shares())]
        ledger = self._ledger = Ledger(
            runs(batch, shares if any(shares) else [1.0] * len(shares), self._owners[kind]),
            len(self._shards),
            backup=self._backup,
            ship_every=self._ship_every if kind == ASSIGN else 0,
            shipments=self._shipments,
            first_shipment=self._next_shipment,
        )
        self._feed(range(len(self._replicas)))
        self._wait(lambda: self._broken or ledger.complete)
        if self._broken:
            for replica in range(len(self._replicas)):
                if self._take_back(replica, self._endpoint.clock()):
                    self._tell(replica, REVOKE)
        self._next_shipment = ledger.next_shipment
        self._ledger = None
        return ledger

    def _result(self, said: np.void) -> None:
        """A replica is done with a portion, or tells that it lives."""
        now, replica = self._endpoint.clock(), int(said["replica"])
        self._told[replica] = said
        self._outbox.hear(replica)
        self._calling.discard(replica)
        returned = self._patience.hear(replica, now)
        if said["kind"] == DONE:
            self._judge(replica, said, now)
        elif returned and self._ledger is not None:  # not at a roll call
            self._feed([replica])

    def _judge(self, replica: int, said: np.void, now: float) -> None:
        """The first to finish a portion may count it."""
        ledger, portion, evaluation = self._ledger, int(said["portion"]), int(said["evaluation"])
        current = ledger is not None and evaluation == self._evaluation
        if current and not math.isfinite(said["loss"]):
            self._broken = True
        if self._broken or not current:
            self._tell(replica, REJECT, portion, evaluation)
            return
        self._pace.learn(replica, int(said["examples"]), float(said["seconds"]))
        self._patience.learn_portion(replica, float(said["seconds"]))
        verdict = ledger.report(replica, portion, float(said["loss"]), now)
        self._tell(replica, ACCEPT if verdict.accepted else REJECT, portion)
        if verdict.accepted:
            self._owners[self._kind][portion] = replica
            self._right[portion] = float(said["right"])
        for loser, seconds in verdict.losers.items():
            self._tell(loser, DROP, portion)
            if seconds is not None:
                self._pace.limit(loser, int(said["examples"]), seconds)
        self._feed([replica, *verdict.losers])

    def _held(self, number: int, shard: int) -> None:
        """A shard holds a shipment; once all do, it counts, on all of them."""
        if self._ledger is None:
            return
        shipment = self._ledger.held(number, self._shards.index(shard))
        if shipment is not None:
            self._patience.learn_shipment(self._endpoint.clock() - shipment.granted)
            self._space.commit(self._evaluation, number, shipment.portions)
            self._grant()

    def _feed(self, replicas: Iterable[int]) -> None:
        """Give each of `replicas` what it has room for, and let those ship that now may."""
        now = self._endpoint.clock()
        for replica in replicas:
            working = self._ledger.working(replica)
            while replica not in self._patience.lost and len(working) < DEPTH:
                # The last portions wait for whoever is free first, and not in queues.
                if working and self._ledger.unassigned < len(self._replicas):
                    break
                if not self._ledger.owes(replica):
                    self._patience.expect(replica, now)
                portion = self._ledger.assign(replica, now, self._seconds)
                if portion is None:
                    break
                self._tell(replica, self._kind, portion)
        self._grant()

    def _grant(self) -> None:
        while (granted := self._ledger.grant(self._endpoint.clock())) is not None:
            number, shipment = granted
            self._tell(shipment.replica, GRANT, shipment=number)

    def _take_back(self, replica: int, now: float) -> bool:
        """Nothing is expected of `replica` any more. Returns whether it had anything that now does not count."""
        taken = self._ledger.give_up(replica, now)
        for number in taken.shipments:
            self._space.abort(number)
        for portion in taken.at_work:
            self._tell(replica, DROP, portion)
        return bool(taken.revoked)

    def _seconds(self, replica: int, portions: int) -> float:
        """How long `replica` would take for so many portions."""
        return self._pace.seconds(replica, portions * self._portions.size)

    def _tell(self, replica: int, kind: int, portion: int = -1, evaluation: int | None = None, shipment: int = -1):
        evaluation = self._evaluation if evaluation is None else evaluation
        said = record(
            WORK_RECORD, kind=kind, portion=portion, evaluation=evaluation, point=self._point, shipment=shipment
        )
        self._outbox.tell(replica, said)
