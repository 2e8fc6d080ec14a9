"""Shipments: sums of gradients on their way from replicas to shards, which hold them until they are to count.

A replica sends each shard a header that names the shipment and its portions, then the sum over what it has of the
shard's interval. If it is cut over several ranks, each of them sends its own part. A shard puts the parts into a buffer
of its own, and says so to the coordinator once it holds the whole. Nobody waits inside a transfer: a replica, or a part
of it, may die in the middle of one.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from distbelief.comm.endpoint import Endpoint, Envelope, Request
from distbelief.server.messages import record
from distbelief.server.placement import Interval, Placement

# Tags: a header, then the sum; what a shard says of it to the coordinator.
SHIPMENT, SUM, HELD = 32, 33, 34

SHIPMENT_RECORD = np.dtype(
    [
        ("shipment", "<i8"),
        ("nbytes", "<i8"),  # of the sum
        ("pieces", "<i8"),  # intervals of the flat vector that it is of, one after the other
    ]
)  # followed by start and stop of each piece, int64; then by the numbers of the portions, int32
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
    intervals: Iterable[Interval],
) -> list[Request]:
    """Start sending `total`, the sum of the gradients of `portions` over `intervals`, to the shards. Local.

    `intervals`: of the flat vector, one after the other in `total`. It must not change until all requests are done.
    """
    requests, begin = [], 0
    for shard, found in groupby(placement.intersect(intervals), key=lambda each: each[0]):
        pieces = np.array([piece for _, piece in found], "<i8")
        end = begin + int((pieces[:, 1] - pieces[:, 0]).sum())
        part, begin = total[begin:end], end
        fields = record(SHIPMENT_RECORD, shipment=number, nbytes=part.nbytes, pieces=len(pieces))
        said = fields, pieces.reshape(-1), np.array(portions, "<i4")
        header = np.concatenate([each.view(np.uint8) for each in said])
        requests.append(endpoint.send(header, shards[shard], SHIPMENT))
        requests.append(endpoint.send(part, shards[shard], SUM))
    assert begin == total.size, f"intervals of {begin} elements for a sum of {total.size}"
    return requests


class _Header(NamedTuple):
    shipment: int
    nbytes: int
    pieces: list[Interval]
    portions: np.ndarray

    @staticmethod
    def read(message: np.ndarray) -> "_Header":
        number, nbytes, count = message[: SHIPMENT_RECORD.itemsize].view(SHIPMENT_RECORD)[0].item()
        end = SHIPMENT_RECORD.itemsize + 16 * count
        bounds = message[SHIPMENT_RECORD.itemsize : end].view("<i8").reshape(count, 2)
        return _Header(number, nbytes, [Interval(*pair) for pair in bounds.tolist()], message[end:].view("<i4"))


class _Incoming:
    """A shipment of which a part has been announced, and perhaps all of it is here."""

    def __init__(self, portions: np.ndarray, total: np.ndarray, began: float, wanted: bool):
        self.portions = portions
        self.total = total  # the parts in the order in which they came
        self.pieces: list[Interval] = []  # likewise
        self.announced = 0  # elements
        self.requests: list[Request] = []
        self.began = began
        self.wanted = wanted

    def room(self, pieces: Sequence[Interval]) -> np.ndarray:
        """Where the sum over some more pieces is to go."""
        begin = self.announced
        self.announced += sum(piece.size for piece in pieces)
        self.pieces += pieces
        return self.total[begin : self.announced]

    @property
    def whole(self) -> bool:
        """All parts are here."""
        self.requests = [request for request in self.requests if not request.done()]
        return self.announced == self.total.size and not self.requests


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
        header = _Header.read(message)
        incoming = self._coming.get(header.shipment)
        if incoming is None:
            total = self._spare.pop() if self._spare else np.empty(self._interval.size, self._dtype)
            wanted = header.shipment not in self._aborted
            self._aborted.discard(header.shipment)
            incoming = _Incoming(header.portions, total, self._endpoint.clock(), wanted)
            self._coming[header.shipment] = incoming
        self._expect_ours(header, incoming, envelope.source)
        incoming.requests.append(self._endpoint.receive(incoming.room(header.pieces), envelope.source, SUM))

    def _expect_ours(self, header: _Header, incoming: _Incoming, source: int) -> None:
        begin, end = self._interval
        size = sum(piece.size for piece in header.pieces)
        who = f"shard on rank {self._endpoint.rank}: shipment {header.shipment} from rank {source}"
        if header.nbytes != size * self._dtype.itemsize or not all(begin <= a < b <= end for a, b in header.pieces):
            places = ", ".join(f"{start}..{stop}" for start, stop in header.pieces)
            raise RuntimeError(f"{who} has {header.nbytes} bytes for {places}, not of the {begin}..{end} here")
        if incoming.announced + size > self._interval.size or not np.array_equal(header.portions, incoming.portions):
            raise RuntimeError(f"{who} is no part of the one of which others have come")

    def work(self) -> float:
        """Look which sums are here, and tell the coordinator; returns the seconds until the next look."""
        rest = math.inf
        for number, incoming in list(self._coming.items()):
            if not incoming.whole:
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
        begin = 0
        for start, stop in held.pieces:
            here = gradient[start - self._interval.start : stop - self._interval.start]
            here += held.total[begin : begin + here.size]
            begin += here.size
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
