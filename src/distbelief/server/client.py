"""The client of the parameter server: fetch and push, both asynchronous.

Invariant: after a fetch is installed, a replica's parameters are the shards' values less `rate` times every
gradient of its own that those values do not yet hold. So a replica never loses its own steps, however late
its pushes are applied, and one replica alone computes what serial SGD does.
"""

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Request, Window
from distbelief.kernels import sgd
from distbelief.server.messages import ACKNOWLEDGEMENT, APPLIED, HEADER, PAYLOAD, PUSH, RECORD, record
from distbelief.server.placement import Placement


class Fetch:
    """A fetch under way into `values`, shape (size,); `records` [shards] holds what the shards say of themselves."""

    def __init__(self, values: np.ndarray, records: np.ndarray, requests: list[Request]):
        self.values = values
        self.records = records
        self.requests = requests

    def done(self) -> bool:
        return all([request.done() for request in self.requests])


class Push:
    """A push under way; `counts` [shards] are the shards' counts at which it was applied, -1 where it is not yet."""

    def __init__(self, sequence: int, gradient: np.ndarray, shards: int):
        self.sequence = sequence
        self.gradient = gradient
        self.counts = np.full(shards, -1)
        self.requests: list[Request] = []

    def done(self) -> bool:
        """Every shard has applied it, and its buffer is free."""
        return bool((self.counts >= 0).all()) and all([request.done() for request in self.requests])


class Client:
    """One rank's access to all shards. All methods are Local."""

    def __init__(
        self, endpoint: Endpoint, window: Window, placement: Placement, shards: list[int], dtype, timeout: float
    ):
        """`shards`: the rank of each shard; `timeout`: seconds that any one wait may take."""
        self._endpoint = endpoint
        self._window = window
        self._placement = placement
        self._shards = shards
        self._timeout = timeout
        self._values = np.empty(placement.size, dtype)
        self._records = np.zeros(len(shards), RECORD)
        self._fetch: Fetch | None = None  # started and not installed
        self._pushes: list[Push] = []  # those that this fetch, or the next, may lack
        self._sequence = 0
        self.bytes_fetched = 0
        self.bytes_pushed = 0
        self.seconds_waiting = 0.0

    def fetch(self) -> Fetch:
        """Start reading the parameters and the records of all shards; the one before must be installed or done."""
        self._hear()
        self._fetch = None
        self._forget()
        requests = []
        for shard, (rank, interval) in enumerate(zip(self._shards, self._placement.intervals, strict=True)):
            # The record first: an update that comes between the two is fetched but not counted, never the reverse.
            requests.append(self._window.get(self._records[shard : shard + 1], rank))
            part = self._values[interval.start : interval.stop]
            requests.append(self._window.get(part, rank, RECORD.itemsize))
            self.bytes_fetched += part.nbytes + RECORD.itemsize
        self._fetch = Fetch(self._values, self._records, requests)
        return self._fetch

    def push(self, gradient: np.ndarray, counts: np.ndarray) -> Push:
        """Start sending `gradient`, shape (size,), to the shards; the buffer is the client's until the push is done.

        `counts` [shards]: the shards' counts when the parameters it was computed from were fetched.
        """
        assert all(push.gradient is not gradient for push in self._pushes), "this buffer is still in use"
        push = Push(self._sequence, gradient, len(self._shards))
        self._sequence += 1
        for shard, (rank, interval) in enumerate(zip(self._shards, self._placement.intervals, strict=True)):
            header = record(
                HEADER, sequence=push.sequence, count=counts[shard], start=interval.start, stop=interval.stop
            )
            part = gradient[interval.start : interval.stop]
            push.requests.append(self._endpoint.send(header, rank, PUSH))
            push.requests.append(self._endpoint.send(part, rank, PAYLOAD))
            self.bytes_pushed += part.nbytes + HEADER.itemsize
        self._pushes.append(push)
        return push

    def wait_fetch(self, fetch: Fetch) -> None:
        """Wait until `fetch` is done; DeadlineExpired if the shards do not answer."""
        began = self._endpoint.clock()
        self._endpoint.wait_all(fetch.requests, self._timeout, f"a fetch from the shards on ranks {self._shards}")
        self.seconds_waiting += self._endpoint.clock() - began

    def wait_push(self, push: Push) -> None:
        """Wait until `push` is done; DeadlineExpired, naming the shards that have not applied it.

        With no fetch under way its buffer is then the caller's again.
        """
        began = self._endpoint.clock()
        self._hear()
        while (push.counts < 0).any():
            if self._endpoint.wait_message(self._timeout, tag=APPLIED) is None:
                late = [rank for rank, count in zip(self._shards, push.counts, strict=True) if count < 0]
                raise DeadlineExpired(
                    f"rank {self._endpoint.rank} waited {self._timeout:g} s for the shards on ranks {late} "
                    f"to apply push {push.sequence}"
                )
            self._hear()
        self._endpoint.wait_all(push.requests, self._timeout, f"the shards to take push {push.sequence}")
        self._forget()
        self.seconds_waiting += self._endpoint.clock() - began

    def install(self, fetch: Fetch, parameters: np.ndarray, accrued: np.ndarray | None, rate: float) -> np.ndarray:
        """Bring a finished fetch into `parameters`, shape (size,), keeping the invariant above.

        `accrued`: the sum of the gradients that are not pushed yet, None if there are none. Returns the
        counts [shards] of the fetch.
        """
        self._hear()
        counts = fetch.records["count"].copy()
        np.copyto(parameters, fetch.values)
        for push in self._pushes:
            for shard, (start, stop) in enumerate(self._placement.intervals):
                if rate and not 0 <= push.counts[shard] <= counts[shard]:
                    sgd(parameters[start:stop], push.gradient[start:stop], rate)
        if rate and accrued is not None:
            sgd(parameters, accrued, rate)
        self._fetch = None
        self._forget()
        return counts

    def _forget(self) -> None:
        """Let go of the pushes that are done, unless a fetch under way may have begun before they were."""
        if self._fetch is None:
            self._pushes = [push for push in self._pushes if not push.done()]

    def _hear(self) -> None:
        """Take in the acknowledgements that have arrived."""
        while (envelope := self._endpoint.probe(tag=APPLIED)) is not None:
            said = np.zeros(1, ACKNOWLEDGEMENT)
            request = self._endpoint.receive(said, envelope.source, APPLIED)
            self._endpoint.wait_all([request], self._timeout, f"an acknowledgement from rank {envelope.source}")
            for push in self._pushes:
                if push.sequence == said["sequence"][0]:
                    push.counts[self._shards.index(envelope.source)] = said["count"][0]
