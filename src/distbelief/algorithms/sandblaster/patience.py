"""How long the coordinator waits for a replica that owes it something, before others do its work."""

import math
from collections.abc import Sequence

from distbelief.algorithms.sandblaster.ledger import Ledger
from distbelief.comm.endpoint import DeadlineExpired

# A replica that owes something and says nothing is given up after this part of the timeout.
SILENCE = 1 / 4
# The replicas are looked at so often (in timeouts).
LOOK = 1 / 32
# A shipment may take so many times as long as the longest before it. Twice as many after each that took too long, so
# that sums which need their time get it in the end.
FACTOR = 4.0


class Patience:
    """Who is thought lost. Giving up a replica that lives costs the repetition of its portions, nothing else."""

    def __init__(self, rank: int, replicas: Sequence[int], timeout: float):
        """`rank`: the coordinator's; `replicas`: theirs; `timeout`: seconds after which nobody is waited for."""
        self._rank = rank
        self._replicas = list(replicas)
        self._timeout = timeout
        self._heard = [-math.inf] * len(replicas)
        self._longest_portion = [0.0] * len(replicas)
        self._longest_shipment: float | None = None
        self._factor = FACTOR
        self._next_look = 0.0
        self.lost: set[int] = set()
        """Replicas of which nothing is expected until they are heard of again."""

    def expect(self, replica: int, now: float) -> None:
        """`replica` owed nothing so far, and does from now on."""
        self._heard[replica] = max(self._heard[replica], now)

    def hear(self, replica: int, now: float) -> bool:
        """`replica` lives. Returns whether it had been thought lost."""
        self._heard[replica] = now
        returned = replica in self.lost
        self.lost.discard(replica)
        return returned

    def learn_portion(self, replica: int, seconds: float) -> None:
        """`replica` took so long for a portion."""
        self._longest_portion[replica] = max(self._longest_portion[replica], seconds)

    def learn_shipment(self, seconds: float) -> None:
        """A shipment took so long from its grant until all shards held it."""
        self._longest_shipment = max(self._longest_shipment or 0.0, seconds)

    def exhausted(self, ledger: Ledger, now: float) -> list[int]:
        """The replicas to be given up now. DeadlineExpired if all have been silent for the whole timeout."""
        late = []
        for shipment in ledger.shipments.values():
            if now - shipment.granted >= self._for_shipment(shipment.replica):
                late.append(shipment.replica)
                self._factor *= 2
        if now < self._next_look:
            return late
        self._next_look = now + LOOK * self._timeout
        if now - max(self._heard) >= self._timeout and len(self.lost) == len(self._replicas):
            raise DeadlineExpired(
                f"rank {self._rank} waited {now - max(self._heard):.3g} s for any of the replicas on ranks "
                f"{self._replicas}"
            )
        for replica, heard in enumerate(self._heard):
            if now - heard >= SILENCE * self._timeout and replica not in self.lost and ledger.owes(replica):
                late.append(replica)
        return sorted(set(late))

    def rest(self, ledger: Ledger, now: float) -> float:
        """Seconds until `exhausted` may have something to say."""
        shipped = (s.granted + self._for_shipment(s.replica) for s in ledger.shipments.values())
        return max(min([self._next_look, *shipped]) - now, 0.0)

    def _for_shipment(self, replica: int) -> float:
        """Seconds that a shipment may take; the replica may have to finish a minibatch before it begins."""
        if self._longest_shipment is None:
            return SILENCE * self._timeout
        return self._factor * self._longest_shipment + 2 * self._longest_portion[replica]
