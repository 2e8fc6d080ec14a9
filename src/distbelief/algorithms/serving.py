"""A rank that trains and serves: an endpoint whose waits are spent on the rank's other parts.

A replica beside a shard waits for other shards, which may be beside replicas that wait for this one. So whenever
it waits, and whenever it looks for messages, the parts beside it get what has come for them: the replica's code is
the same, and no two ranks wait for each other.
"""

import math
from collections.abc import Sequence

import numpy as np

from distbelief.algorithms.loop import Part
from distbelief.comm.endpoint import ANY, DeadlineExpired, Endpoint, Envelope, Request, Window


class Serving:
    """`endpoint`, shared with `parts` of the same rank (comm.endpoint.Endpoint). All methods are Local, as there.

    The parts themselves use the endpoint as it is: they never wait for long, and are not served by each other.
    """

    def __init__(self, endpoint: Endpoint, parts: Sequence[Part]):
        self.rank = endpoint.rank
        self.size = endpoint.size
        self._endpoint = endpoint
        self._parts = parts
        self._by_tag = {tag: part for part in parts for tag in part.tags}
        self._patterns = [(ANY, tag) for tag in self._by_tag]

    def send(self, buffer: np.ndarray, dest: int, tag: int) -> Request:
        return self._endpoint.send(buffer, dest, tag)

    def receive(self, buffer: np.ndarray, source: int, tag: int) -> Request:
        return self._endpoint.receive(buffer, source, tag)

    def probe(self, source: int = ANY, tag: int = ANY) -> Envelope | None:
        """Also gives the parts what waits for them."""
        self._serve()
        return self._endpoint.probe(source, tag)

    def wait_message(self, timeout: float, source: int = ANY, tag: int = ANY) -> Envelope | None:
        assert tag != ANY and tag not in self._by_tag, "such messages are for the parts"
        end = self.clock() + timeout
        while (envelope := self._endpoint.probe(source, tag)) is None and self.clock() < end:
            self._serve_until(end, patterns=[(source, tag)])
        return envelope

    def wait_any(self, requests: Sequence[Request], timeout: float, what: str) -> int:
        end = self.clock() + timeout
        while True:
            for index, request in enumerate(requests):
                if request.done():
                    return index
            self._expire(end, timeout, what)
            self._serve_until(end, requests)

    def wait_all(self, requests: Sequence[Request], timeout: float, what: str) -> None:
        end = self.clock() + timeout
        waiting = list(requests)
        while waiting := [request for request in waiting if not request.done()]:
            self._expire(end, timeout, what)
            self._serve_until(end, waiting)

    def wait_event(
        self, timeout: float, requests: Sequence[Request] = (), patterns: Sequence[tuple[int, int]] = ()
    ) -> bool:
        end = self.clock() + timeout
        while not any([request.done() for request in requests]):
            if any(self._endpoint.probe(*pattern) for pattern in patterns):
                break
            if self.clock() >= end:
                return False
            self._serve_until(end, requests, patterns)
        return True

    def window(self, nbytes: int) -> Window:
        return self._endpoint.window(nbytes)

    def split(self, color: int | None, key: int) -> Endpoint | None:
        return self._endpoint.split(color, key)

    def clock(self) -> float:
        return self._endpoint.clock()

    def charge(self, flops: float = 0.0, nbytes: float = 0.0) -> None:
        self._endpoint.charge(flops, nbytes)

    def serve(self) -> None:
        """Serve the parts alone, until one of them has finished."""
        while not any(part.finished for part in self._parts):
            self._serve_until(math.inf)

    def _serve_until(
        self, end: float, requests: Sequence[Request] = (), patterns: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Serve once; with nothing to do, wait for something to do or for what the caller waits for, until `end`."""
        rest = min(self._serve(), end - self.clock())
        if rest > 0:
            self._endpoint.wait_event(rest, requests, [*patterns, *self._patterns])

    def _serve(self) -> float:
        """Give the parts a message of each kind that has arrived, and time for a piece of work.

        Returns the seconds until there may be more.
        """
        busy = False
        for tag, part in self._by_tag.items():
            envelope = self._endpoint.probe(tag=tag)
            if envelope is not None:
                part.take(envelope)
                busy = True
        rest = min(part.work() for part in self._parts)
        return 0.0 if busy else rest

    def _expire(self, end: float, timeout: float, what: str) -> None:
        if self.clock() >= end:
            raise DeadlineExpired(f"rank {self.rank} waited {timeout:g} s for {what}")
