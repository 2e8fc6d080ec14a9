"""Shipments: sums of gradients on their way from replicas to shards, which hold them until they are to count.

A replica sends each shard a header that names the shipment and its portions, then the sum over the shard's interval.
A shard holds it in a buffer of its own and says so to the coordinator. Nobody waits inside a transfer: a replica may
die in the middle of one.
"""

import math
from collections.abc import Sequence

import numpy as np

from distbelief.comm.endpoint import Endpoint, Envelope, Request
from distbelief.server.messages import record
from distbelief.server.placement import Interval, Placement

# Tags: a header, then the sum; what a shard says of it to the coordinator.
SHIPMENT, SUM, HELD = 32, 33, 34

SHIPMENT_RECORD = np.dtype(
    [
        ("shipment", "<i8"),
        ("start", "<i8"),  # the interval of the sum
        ("stop", "<i8"),
        ("nbytes", "<i8"),  # of the sum
    ]
)  # followed by the numbers of the portions, int32
HELD_RECORD = np.dtype([("shipment", "<i8")])

# While a sum is coming in, a shard looks for its end after this part of the time that it has taken so far.
IMPATIENCE = 0.1
SHORTEST_LOOK, LONGEST_LOOK = 5e-6, 50e-3  # seconds


def ship(
    endpoint: Endpoint,
    placement: Placement,
    shards: Sequence[int],
    number: int,
    portions: Sequence[int],
    total: np.ndarray,
) -> list[Request]:
    """Start sending `total`, shape (placement.size,), the sum of the gradients of `portions`, to the shards. Local.

    It must not change until all requests are done.
    """
    requests = []
    for rank, (start, stop) in zip(shards, placement.intervals, strict=True):
        part = total[start:stop]
        fields = record(SHIPMENT_RECORD, shipment=number, start=start, stop=stop, nbytes=part.nbytes)
        header = np.concatenate([fields.view(np.uint8), np.array(portions, "<i4").view(np.uint8)])
        requests.append(endpoint.send(header, rank, SHIPMENT))
        requests.append(endpoint.send(part, rank, SUM))
    return requests


class _Incoming:
    """A shipment that has been announced, and perhaps is here."""

    def __init__(self, portions: np.ndarray, total: np.ndarray, request: Request, began: float):
        self.portions = portions
        self.total = total
        self.request = request
        self.began = began
        self.wanted = True


class Staging:
    """What a shard holds until the coordinator says whether it counts. All methods are Local."""

    def __init__(self, endpoint: Endpoint, interval: Interval, dtype: np.dtype, coordinator: int, timeout: float):
        self._endpoint = endpoint
        self._interval = interval
        self._dtype = np.dtype(dtype)
        self._coordinator = coordinator
        self._timeout = timeout
        self._coming: dict[int, _Incoming] = {}
        self._held: dict[int, _Incoming] = {}
        self._aborted: set[int] = set()  # before they were announced
        self._spare: list[np.ndarray] = []
        self._telling: list[Request] = []

    @property
    def holding(self) -> int:
        """Shipments that are here, and neither count nor have been aborted."""
        return len(self._held)

    def take(self, envelope: Envelope) -> None:
        """Receive the header that waits in `envelope`, and begin to receive the sum. RuntimeError if it is not ours."""
        message = np.empty(envelope.nbytes, np.uint8)
        receiving = self._endpoint.receive(message, envelope.source, SHIPMENT)
        self._endpoint.wait_all([receiving], self._timeout, f"the header of a shipment from rank {envelope.source}")
        header = message[: SHIPMENT_RECORD.itemsize].view(SHIPMENT_RECORD)[0]
        number, start, stop, nbytes = header.item()
        expected = self._interval.size * self._dtype.itemsize
        if (start, stop) != self._interval or nbytes != expected:
            raise RuntimeError(
                f"shard on rank {self._endpoint.rank}: shipment {number} from rank {envelope.source} has {nbytes} "
                f"bytes for {start}..{stop}, expected {expected} for {self._interval.start}..{self._interval.stop}"
            )
        total = self._spare.pop() if self._spare else np.empty(self._interval.size, self._dtype)
        portions = message[SHIPMENT_RECORD.itemsize :].view("<i4")
        request = self._endpoint.receive(total, envelope.source, SUM)
        self._coming[number] = _Incoming(portions, total, request, self._endpoint.clock())
        if number in self._aborted:
            self._aborted.discard(number)
            self._coming[number].wanted = False

    def work(self) -> float:
        """Look which sums are here, and tell the coordinator; returns the seconds until the next look."""
        rest = math.inf
        for number, incoming in list(self._coming.items()):
            if not incoming.request.done():
                taken = self._endpoint.clock() - incoming.began
                rest = min(rest, max(SHORTEST_LOOK, min(IMPATIENCE * taken, LONGEST_LOOK)))
                continue
            del self._coming[number]
            if incoming.wanted:
                self._held[number] = incoming
                self._tell(number)
            else:
                self._spare.append(incoming.total)
        return rest

    def commit(self, number: int, portions: np.ndarray, gradient: np.ndarray) -> None:
        """Shipment `number`, which the coordinator takes to hold `portions`, counts: add it to `gradient`."""
        held = self._held.pop(number)
        if not np.array_equal(held.portions, portions):
            raise RuntimeError(
                f"shard on rank {self._endpoint.rank}: shipment {number} holds the portions {held.portions.tolist()}, "
                f"the coordinator counts {portions.tolist()}"
            )
        gradient += held.total
        self._endpoint.charge(nbytes=3 * gradient.nbytes)
        self._spare.append(held.total)

    def abort(self, number: int) -> None:
        """Shipment `number` will never count, whether it is here, on its way, or never comes."""
        if number in self._held:
            self._spare.append(self._held.pop(number).total)
        elif number in self._coming:
            # Its buffer is the transport's until the sum is here; of a dead replica it stays so.
            self._coming[number].wanted = False
        else:
            self._aborted.add(number)

    def _tell(self, number: int) -> None:
        self._telling = [request for request in self._telling if not request.done()]
        said = record(HELD_RECORD, shipment=number)
        self._telling.append(self._endpoint.send(said, self._coordinator, HELD))
