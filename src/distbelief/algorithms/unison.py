"""The ranks of one replica take every step together: its head, partition 0, decides, and the others follow."""

from collections.abc import Sequence

import numpy as np

from distbelief.algorithms.coordination import Orders
from distbelief.comm.endpoint import Endpoint
from distbelief.partition.peers import CONTROL
from distbelief.server.messages import record

# What comes next: another step; an evaluation; the last push, as there are enough steps; nothing more to train, as a
# number was not finite; the end of rest.
STEP, EVALUATE, FLUSH, FAULT, END = range(5)

_WORD = np.dtype([("word", "<i4"), ("which", "<i4"), ("clock", "<i8")])
STATUS = np.dtype(
    [
        ("finite", "<i8"),  # all its losses and gradients
        ("bytes_fetched", "<i8"),  # all numbers since the beginning
        ("bytes_pushed", "<i8"),
        ("seconds_fetching", "<f8"),
        ("seconds_pushing", "<f8"),
    ]
)


class Unison:
    """One rank among those of its replica. All methods are Collective over the replica, but for the properties.

    A replica on one rank sends nothing.
    """

    def __init__(self, endpoint: Endpoint, orders: Orders, ranks: Sequence[int], timeout: float):
        """`orders`: what this rank hears of the coordinator; `ranks`: of the partitions."""
        self._endpoint = endpoint
        self._orders = orders
        self._head, *self._others = ranks
        self._timeout = timeout
        self.which = 0
        """What is to be evaluated (coordination.Orders.which), once EVALUATE has come."""
        self.clock = 0
        """With which to begin (coordination.Orders.clock), once the rest before training has ended."""
        self.statuses = np.zeros(len(ranks), STATUS)
        """At the head: what each partition has told last, [P]."""

    @property
    def leads(self) -> bool:
        """This rank is the head."""
        return self._endpoint.rank == self._head

    def next(self, status: np.ndarray, enough: bool = False) -> int:
        """What comes next: STEP, EVALUATE, FLUSH or FAULT. `enough`: no step is left to be taken.

        `status`: of this partition, STATUS, [1].
        """
        self.gather(status)
        if not self.leads:
            return self._follow()
        if not self.statuses["finite"].all():
            return self._tell(FAULT)
        if enough or self._orders.stopped:
            return self._tell(FLUSH)
        return self._tell(EVALUATE if self._orders.take_evaluation() else STEP)

    def rest(self, *kinds: int) -> int:
        """EVALUATE, or END once one of `kinds` has been ordered (see coordination): what comes between trainings."""
        if not self.leads:
            return self._follow()
        while not self._orders.take_evaluation():
            if self._orders.given(*kinds):
                return self._tell(END)
            self._orders.hear()
        return self._tell(EVALUATE)

    def gather(self, status: np.ndarray) -> None:
        """The head hears what each partition has come to."""
        if not self.leads:
            sending = self._endpoint.send(status, self._head, CONTROL)
            self._wait([sending], self._head, "to hear how this one is")
            return
        self.statuses[0] = status[0]
        hearing = []
        for partition, rank in enumerate(self._others, start=1):
            into = self.statuses[partition : partition + 1]
            hearing.append((self._endpoint.receive(into, rank, CONTROL), rank))
        for request, rank in hearing:
            self._wait([request], rank, "to be through with its step")

    def _tell(self, word: int) -> int:
        self.which, self.clock = self._orders.which, self._orders.clock
        said = record(_WORD, word=word, which=self.which, clock=self.clock)
        for rank in self._others:
            self._wait([self._endpoint.send(said, rank, CONTROL)], rank, "to hear what comes next")
        return word

    def _follow(self) -> int:
        """Hear the head, and meanwhile the coordinator's signs of life."""
        while True:
            patterns = [(self._head, CONTROL), self._orders.pattern]
            self._endpoint.wait_event(self._orders.work(), patterns=patterns)
            if self._endpoint.probe(self._head, CONTROL) is not None:
                said = np.zeros(1, _WORD)
                self._wait([self._endpoint.receive(said, self._head, CONTROL)], self._head, "to say what comes next")
                word, self.which, self.clock = said[0].item()
                return word
            self._orders.listen()

    def _wait(self, requests: list, rank: int, what: str) -> None:
        partition = 0 if rank == self._head else 1 + self._others.index(rank)
        whom = f"partition {partition} of the replica (rank {rank}) {what}"
        self._endpoint.wait_all(requests, self._timeout, whom)
