"""The service of a shard: receives pushes, applies them, acknowledges them."""

import math
import sys

import numpy as np

from distbelief.comm.endpoint import Endpoint, Envelope, Request
from distbelief.server.messages import (
    ACKNOWLEDGEMENT,
    APPLIED,
    FETCHING,
    GRADIENT,
    HEADER,
    PAYLOAD,
    PUSH,
    THROUGH,
    record,
)
from distbelief.server.settings import Server
from distbelief.server.shard import Shard
from distbelief.server.wire import wire_dtype


class Service:
    """One shard's part in a rank's loop (see algorithms.loop). Fetches are one-sided: it never sees them."""

    tags = (PUSH,)
    finished = False  # a shard serves until the coordinator ends the job

    def __init__(self, endpoint: Endpoint, shard: Shard, timeout: float, settings: Server | None = None):
        self._endpoint = endpoint
        self._shard = shard
        self._timeout = timeout
        settings = settings or Server()
        self._header = np.zeros(1, HEADER)
        self._gradient = np.empty(shard.interval.size, wire_dtype(settings.push_wire, shard.parameters.dtype))
        self._acknowledging: list[Request] = []

    def work(self) -> float:
        """Nothing to do between messages."""
        return math.inf

    def take(self, envelope: Envelope) -> None:
        """Receive the message whose header waits in `envelope`, do what it says. Local.

        What a shard cannot take (an unknown header, another interval, a payload of another size) is refused: it is
        received and dropped, counted, and told on stderr with its source; never applied in part. Raises
        DeadlineExpired if a payload does not come.
        """
        source = envelope.source
        if envelope.nbytes != HEADER.itemsize:
            self._drop(source, PUSH, envelope.nbytes)
            self._refuse(source, f"a header of {envelope.nbytes} bytes, expected {HEADER.itemsize}")
            return
        self._receive(self._header, source, PUSH, f"the header of a push from rank {source}")
        header = self._header[0]
        kind, replica = int(header["kind"]), int(header["replica"])
        if kind == GRADIENT:
            self._take_gradient(header, source)
        elif kind == FETCHING:
            self._shard.remember(replica)
        elif kind == THROUGH:
            self._shard.part_with(replica)
        else:
            if header["nbytes"]:
                self._drop_payload(source)
            self._refuse(source, f"a header of unknown kind {kind}")

    def _take_gradient(self, header: np.void, source: int) -> None:
        shard = self._shard
        interval, nbytes = (int(header["start"]), int(header["stop"])), int(header["nbytes"])
        if interval != shard.interval or nbytes != self._gradient.nbytes:
            self._drop_payload(source)
            self._refuse(
                source,
                f"a push of {nbytes} bytes for the interval {interval[0]}..{interval[1]}, expected "
                f"{self._gradient.nbytes} bytes for {shard.interval.start}..{shard.interval.stop}",
            )
            return
        self._receive(self._gradient, source, PAYLOAD, f"the gradient of push {header['sequence']} from rank {source}")
        self._endpoint.charge(nbytes=shard.traffic)
        shard.apply(self._gradient, int(header["count"]), int(header["replica"]), int(header["clock"]))
        reply = record(ACKNOWLEDGEMENT, sequence=header["sequence"], count=shard.count)
        self._acknowledging = [request for request in self._acknowledging if not request.done()]
        self._acknowledging.append(self._endpoint.send(reply, source, APPLIED))

    def _receive(self, buffer: np.ndarray, source: int, tag: int, what: str) -> None:
        self._endpoint.wait_all([self._endpoint.receive(buffer, source, tag)], self._timeout, what)

    def _drop_payload(self, source: int) -> None:
        """Receive the payload that follows a refused header, whatever its size, so that the next one is in step."""
        envelope = self._endpoint.wait_message(self._timeout, source, PAYLOAD)
        if envelope is not None:
            self._drop(source, PAYLOAD, envelope.nbytes)

    def _drop(self, source: int, tag: int, nbytes: int) -> None:
        self._receive(np.empty(nbytes, np.uint8), source, tag, f"a message from rank {source} that is refused")

    def _refuse(self, source: int, what: str) -> None:
        self._shard.refuse()
        here = self._endpoint.rank
        print(f"distbelief: shard on rank {here} refused {what}, from rank {source}", file=sys.stderr, flush=True)
