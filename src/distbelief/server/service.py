"""The service of a shard: receives pushes, applies them, acknowledges them."""

import math
import sys

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Envelope, Request
from distbelief.server.messages import (
    ACKNOWLEDGEMENT,
    APPLIED,
    FETCHING,
    GRADIENT,
    HEADER,
    LYING,
    PAYLOADS,
    PUSH,
    THROUGH,
    Header,
    payload_tag,
    record,
)
from distbelief.server.pieces import MOST
from distbelief.server.settings import Server
from distbelief.server.shard import Shard
from distbelief.server.wire import wire_dtype


class Service:
    """One shard's part in a rank's loop (see algorithms.loop). Fetches are one-sided: it never sees them."""

    tags = (PUSH,)
    strays = PAYLOADS  # taken with their headers, or else nobody's
    finished = False  # a shard serves until the coordinator ends the job

    def __init__(self, endpoint: Endpoint, shard: Shard, timeout: float, settings: Server | None = None):
        self._endpoint = endpoint
        self._shard = shard
        self._timeout = timeout
        settings = settings or Server()
        self._header = np.zeros(1, HEADER)
        self._wire = wire_dtype(settings.push_wire, shard.parameters.dtype)
        # One for all pieces: what was received is still in the cache when it is applied.
        self._gradient = np.empty(min(shard.interval.size, MOST), self._wire)
        self._memories: dict[int, np.ndarray] = {}
        self._acknowledging: list[Request] = []
        self._unwanted: set[tuple[int, int]] = set()  # source and tag of payloads whose headers were refused
        self._refused: dict[tuple[int, int], int] = {}  # the last push, by source and client, of which a piece was

    def work(self) -> float:
        """Nothing to do between messages, but to drop what is unwanted."""
        self._drop_unwanted()
        return math.inf

    def take(self, envelope: Envelope) -> None:
        """Receive the message whose header waits in `envelope`, do what it says. Local.

        What a shard cannot take (an unknown header, an interval that is not its own, a payload of another size or
        without a header) is refused: dropped, counted, and told on stderr with its source. Of a push of several pieces
        what comes after one that was refused is refused too, and the push is neither counted nor acknowledged. Raises
        DeadlineExpired if a payload does not come.
        """
        source, tag, nbytes = envelope.source, envelope.tag, envelope.nbytes
        if tag in PAYLOADS:
            self._drop(source, tag, nbytes)
            if (source, tag) in self._unwanted:
                self._unwanted.remove((source, tag))
            else:
                self._refuse(source, f"a payload of {nbytes} bytes without a header")
            return
        self._drop_unwanted()  # before another payload may have the same tag
        if nbytes != HEADER.itemsize:
            self._drop(source, PUSH, nbytes)
            self._refuse(source, f"a header of {nbytes} bytes, expected {HEADER.itemsize}")
            return
        self._receive(self._header, source, PUSH, f"the header of a push from rank {source}")
        header = Header(*self._header.item())
        if not 0 <= header.client < self._shard.clients:
            self._refuse_whole(header, source, f"a header of client {header.client}, of {self._shard.clients}")
        elif header.kind in (GRADIENT, LYING):
            self._take_gradient(header, source)
        elif header.kind == FETCHING:
            self._take_fetching(header, source)
        elif header.kind == THROUGH:
            self._shard.part_with(header.client)
        else:
            self._refuse_whole(header, source, f"a header of unknown kind {header.kind}")

    def _take_fetching(self, header: Header, source: int) -> None:
        start, stop = header.start, header.stop
        begin, end = self._shard.interval
        if begin <= start < stop <= end:
            self._shard.remember(header.client, start, stop)
        else:
            self._refuse_whole(header, source, f"a fetch of the interval {start}..{stop}, not within {begin}..{end}")

    def _take_gradient(self, header: Header, source: int) -> None:
        shard = self._shard
        start, stop, nbytes = header.start, header.stop, header.nbytes
        begin, end = shard.interval
        if self._refused.get((source, header.client)) == header.sequence:
            self._expect_unwanted(header, source)  # told once
            return
        if not begin <= start < stop <= end or nbytes != (stop - start) * self._wire.itemsize:
            self._refuse_whole(
                header,
                source,
                f"a push of {nbytes} bytes for the interval {start}..{stop}, expected "
                f"{self._wire.itemsize} bytes for each of an interval within {begin}..{end}",
            )
            gradient = None
        else:
            gradient = self._follows(header, source) if header.kind == GRADIENT else self._lies(header, source)
        if gradient is None:
            self._refused[source, header.client] = header.sequence
            return
        self._endpoint.charge(nbytes=shard.traffic(gradient.size))
        last = bool(header.last)
        shard.apply(gradient, header.count, header.client, header.clock, header.sequence, start, header.mark, last)
        if last:
            reply = record(ACKNOWLEDGEMENT, sequence=header.sequence, count=shard.count)
            self._acknowledging = [request for request in self._acknowledging if not request.done()]
            self._acknowledging.append(self._endpoint.send(reply, source, APPLIED))

    def _follows(self, header: Header, source: int) -> np.ndarray | None:
        """The payload that comes behind its header; None if it was refused."""
        size, nbytes = header.stop - header.start, header.nbytes
        if size > self._gradient.size:
            self._gradient = np.empty(size, self._wire)
        gradient = self._gradient[:size]
        what = f"the gradient of push {header.sequence} from rank {source}"
        tag = payload_tag(header.mark)
        self._unwanted.discard((source, tag))
        envelope = self._endpoint.wait_message(self._timeout, source, tag)
        if envelope is None:
            raise DeadlineExpired(f"rank {self._endpoint.rank} waited {self._timeout:g} s for {what}")
        # Never received on trust: MPI may write a longer one past the buffer.
        if envelope.nbytes != nbytes:
            self._drop(source, tag, envelope.nbytes)
            self._refuse(source, f"a payload of {envelope.nbytes} bytes, expected {nbytes} as its header says,")
            return None
        self._receive(gradient, source, tag, what)
        return gradient

    def _lies(self, header: Header, source: int) -> np.ndarray | None:
        """The payload that lies in the window of `source`; None if it was refused."""
        memory = self._memory(source)
        begin, end = header.place, header.place + header.nbytes
        if not 0 <= begin < end <= memory.size or begin % self._wire.itemsize:
            self._refuse(source, f"a push that lies at {begin}..{end} of the {memory.size} bytes it can read there")
            return None
        return memory[begin:end].view(self._wire)

    def _memory(self, source: int) -> np.ndarray:
        """What can be read of the window of `source`; it is not to be written to."""
        if source not in self._memories:
            memory = self._shard.memory_of(source)
            self._memories[source] = np.empty(0, np.uint8) if memory is None else memory
        return self._memories[source]

    def _receive(self, buffer: np.ndarray, source: int, tag: int, what: str) -> None:
        self._endpoint.wait_all([self._endpoint.receive(buffer, source, tag)], self._timeout, what)

    def _refuse_whole(self, header: Header, source: int, what: str) -> None:
        """Refuse a header; the payload that may follow it is dropped when it comes."""
        self._expect_unwanted(header, source)
        self._refuse(source, what)

    def _expect_unwanted(self, header: Header, source: int) -> None:
        if header.kind != LYING:
            self._unwanted.add((source, payload_tag(header.mark)))

    def _drop_unwanted(self) -> None:
        for source, tag in list(self._unwanted):
            if (envelope := self._endpoint.probe(source, tag)) is not None:
                self._drop(source, tag, envelope.nbytes)
                self._unwanted.remove((source, tag))

    def _drop(self, source: int, tag: int, nbytes: int) -> None:
        self._receive(np.empty(nbytes, np.uint8), source, tag, f"a message from rank {source} that is refused")

    def _refuse(self, source: int, what: str) -> None:
        self._shard.refuse()
        here = self._endpoint.rank
        print(f"distbelief: shard on rank {here} refused {what}, from rank {source}", file=sys.stderr, flush=True)
