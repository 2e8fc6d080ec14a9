"""What travels between the coordinator and the other ranks: reports to it, orders from it."""

import math

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Envelope
from distbelief.server.messages import record

REPORT, ORDER = 10, 11  # tags

# Kinds of reports. READY: a shard serves. PROGRESS: a replica trains. FAULT: it met a number that is not finite.
# FINISHED: it is through, and all its pushes are applied. SCORING: it is at an evaluation. SCORED: that is done.
READY, PROGRESS, FAULT, FINISHED, SCORING, SCORED = range(6)

REPORT_RECORD = np.dtype(
    [
        ("kind", "<i4"),
        ("replica", "<i4"),
        ("step", "<i8"),  # all numbers are of this replica, and since the beginning
        ("examples", "<i8"),
        ("loss", "<f8"),  # of the latest minibatch; SCORED: of the evaluation
        ("accuracy", "<f8"),  # SCORED: NaN if the model knows none
        ("bytes_fetched", "<i8"),
        ("bytes_pushed", "<i8"),
        ("seconds", "<f8"),  # since the replica was started
        ("seconds_fetching", "<f8"),  # waiting for fetches, and for slower replicas
        ("seconds_pushing", "<f8"),  # waiting for pushes
    ]
)

# Kinds of orders. START: train. STOP: finish early. END: everything is done, leave. GIVE_UP: leave, training has
# failed. TICK: the coordinator lives. LEAVE: as END or GIVE_UP, but a rank is missing: enter no collective call.
# EVALUATE: score examples, HELD_OUT or TEST.
START, STOP, END, GIVE_UP, TICK, LEAVE, EVALUATE = range(7)
HELD_OUT, TEST = range(2)

ORDER_RECORD = np.dtype([("kind", "<i8"), ("which", "<i8")])  # which: of START a clock


class Orders:
    """A rank's ear for the coordinator. Also the part of a rank's loop that ends it (`tags`, `take`, `finished`)."""

    tags = (ORDER,)

    def __init__(self, endpoint: Endpoint, coordinator: int, timeout: float):
        self._endpoint = endpoint
        self._coordinator = coordinator
        self._timeout = timeout
        self._heard = endpoint.clock()
        self._given: set[int] = set()
        self.pattern = (coordinator, ORDER)
        """Of messages with orders: source, tag."""
        self.which = HELD_OUT
        """What the latest EVALUATE is about."""
        self.clock = 0
        """With which to begin, once START has come (warmstart.starts)."""

    @property
    def finished(self) -> bool:
        return bool(self._given & {END, GIVE_UP, LEAVE})

    @property
    def rank_is_missing(self) -> bool:
        """Told that not all ranks will come to a collective call."""
        return LEAVE in self._given

    @property
    def failed(self) -> bool:
        """Told that training has failed."""
        return GIVE_UP in self._given

    @property
    def stopped(self) -> bool:
        """Told to stop training, or to leave."""
        self.listen()
        return bool(self._given & {STOP, END, GIVE_UP, LEAVE})

    def take_evaluation(self) -> bool:
        """Whether an evaluation has been ordered that nobody has taken yet: now it is taken."""
        self.listen()
        ordered = EVALUATE in self._given
        self._given.discard(EVALUATE)
        return ordered

    def take(self, envelope: Envelope) -> None:
        """Receive the order that waits in `envelope`. Local."""
        order = np.zeros(1, ORDER_RECORD)
        request = self._endpoint.receive(order, envelope.source, ORDER)
        self._endpoint.wait_all([request], self._timeout, f"an order from rank {envelope.source}")
        self._given.add(int(order["kind"][0]))
        if order["kind"][0] == EVALUATE:
            self.which = int(order["which"][0])
        elif order["kind"][0] == START:
            self.clock = int(order["which"][0])
        self._heard = self._endpoint.clock()

    def work(self) -> float:
        """Seconds until the coordinator's silence is too long; raises DeadlineExpired when it is."""
        if self._coordinator == self._endpoint.rank:
            return math.inf  # nobody is to be missed
        silence = self._endpoint.clock() - self._heard
        if silence >= self._timeout:
            self.listen()  # what came while this rank was busy, or stopped
            silence = self._endpoint.clock() - self._heard
        if silence >= self._timeout:
            raise DeadlineExpired(
                f"rank {self._endpoint.rank} waited {silence:.0f} s for the coordinator on rank {self._coordinator}"
            )
        return self._timeout - silence

    def wait(self, *kinds: int) -> None:
        """Wait until one of `kinds` has been ordered."""
        while not self.given(*kinds):
            self.hear()

    def given(self, *kinds: int) -> bool:
        """Whether one of `kinds` has been ordered and heard."""
        return bool(self._given & set(kinds))

    def hear(self) -> None:
        """Wait for an order."""
        envelope = self._endpoint.wait_message(self.work(), self._coordinator, ORDER)
        if envelope is not None:
            self.take(envelope)

    def listen(self) -> None:
        """Take the orders that have arrived."""
        while (envelope := self._endpoint.probe(self._coordinator, ORDER)) is not None:
            self.take(envelope)


def report(endpoint: Endpoint, coordinator: int, timeout: float, kind: int, **fields) -> None:
    """Send a report to the coordinator. Local."""
    sending = endpoint.send(record(REPORT_RECORD, kind=kind, **fields), coordinator, REPORT)
    endpoint.wait_all([sending], timeout, f"the coordinator on rank {coordinator} to take a report")
