"""The client of the parameter server: fetch and push, both asynchronous.

Invariant: after a fetch is installed, a replica's parameters are the shards' values less `rate` times every
gradient of its own that those values do not yet hold. So a replica never loses its own steps, however late
its pushes are applied, and one replica alone computes what serial SGD does.
"""

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Request, Window
from distbelief.kernels import narrow_carrying, sgd, step_from, widen
from distbelief.server.messages import (
    ACKNOWLEDGEMENT,
    APPLIED,
    FETCHING,
    GRADIENT,
    HEADER,
    NOTHING,
    PAYLOAD,
    PUSH,
    RECORD,
    THROUGH,
    record,
)
from distbelief.server.placement import Placement
from distbelief.server.settings import Server
from distbelief.server.staleness import Compensated
from distbelief.server.wire import wire_dtype

# A replica that waits for the slowest looks this often (seconds).
SHORTEST_PAUSE, LONGEST_PAUSE = 50e-6, 5e-3


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

    def __init__(self, sequence: int, gradient: np.ndarray, wired: np.ndarray, shards: int):
        """`gradient`: what was pushed; `wired`: the same as it travels (the same array, or bfloat16)."""
        self.sequence = sequence
        self.gradient = gradient
        self.wired = wired
        self.counts = np.full(shards, -1)
        self.requests: list[Request] = []

    def done(self) -> bool:
        """Every shard has applied it, and its buffer is free."""
        return bool((self.counts >= 0).all()) and all([request.done() for request in self.requests])


class Client:
    """One rank's access to all shards. All methods are Local."""

    def __init__(
        self,
        endpoint: Endpoint,
        window: Window,
        placement: Placement,
        shards: list[int],
        dtype,
        timeout: float,
        settings: Server | None = None,
        replica: int | None = None,
    ):
        """`shards`: the rank of each shard; `timeout`: seconds that any one wait may take.

        `replica`: its number. None only reads, and reads the parameters themselves whatever the wire.
        """
        settings = settings or Server()
        self._endpoint = endpoint
        self._window = window
        self._placement = placement
        self._shards = shards
        self._timeout = timeout
        self._dtype = np.dtype(dtype)
        self._replica = replica
        self._announce = replica is not None and isinstance(settings.staleness, Compensated)
        self._fetch_dtype = wire_dtype("native" if replica is None else settings.fetch_wire, self._dtype)
        self._push_dtype = wire_dtype(settings.push_wire, self._dtype)
        self._values = np.empty(placement.size, self._fetch_dtype)
        self._records = np.zeros(len(shards), RECORD)
        # For a push in bfloat16: what rounding has lost so far, and the buffers that are not on their way.
        self._carry = np.zeros(placement.size if self._push_dtype != self._dtype else 0, self._dtype)
        self._wire_buffers: list[np.ndarray] = []
        self._fetch: Fetch | None = None  # started and not installed
        self._pushes: list[Push] = []  # those that this fetch, or the next, may lack
        self._telling: list[Request] = []
        self._sequence = 0
        self.bytes_fetched = 0
        self.bytes_pushed = 0
        self.seconds_fetching = 0.0
        """Spent waiting for fetches."""
        self.seconds_pushing = 0.0
        """Spent waiting for pushes."""

    def fetch(self) -> Fetch:
        """Start reading the parameters and the records of all shards; the one before must be installed or done."""
        self._hear()
        self._fetch = None
        self._forget()
        if self._announce:
            self._tell(FETCHING)
        requests = []
        for shard, (rank, interval) in enumerate(zip(self._shards, self._placement.intervals, strict=True)):
            # The record first: an update that comes between the two is fetched but not counted, never the reverse.
            requests.append(self._window.get(self._records[shard : shard + 1], rank))
            part = self._values[interval.start : interval.stop]
            # In the window a bfloat16 shadow comes behind the parameters.
            behind = 0 if self._fetch_dtype == self._dtype else interval.size * self._dtype.itemsize
            requests.append(self._window.get(part, rank, RECORD.itemsize + behind))
            self.bytes_fetched += part.nbytes + RECORD.itemsize
        self._fetch = Fetch(self._values, self._records, requests)
        return self._fetch

    def push(self, gradient: np.ndarray, counts: np.ndarray, clock: int = 0) -> Push:
        """Start sending `gradient`, shape (size,), to the shards; the buffer is the client's until the push is done.

        `counts` [shards]: the shards' counts when the parameters it was computed from were fetched; `clock`: the
        steps that the replica has taken.
        """
        assert all(push.gradient is not gradient for push in self._pushes), "this buffer is still in use"
        push = Push(self._sequence, gradient, self._as_wired(gradient), len(self._shards))
        self._sequence += 1
        for shard, (rank, interval) in enumerate(zip(self._shards, self._placement.intervals, strict=True)):
            part = push.wired[interval.start : interval.stop]
            header = record(
                HEADER,
                kind=GRADIENT,
                replica=self._replica or 0,
                sequence=push.sequence,
                count=counts[shard],
                clock=clock,
                start=interval.start,
                stop=interval.stop,
                nbytes=part.nbytes,
            )
            push.requests.append(self._endpoint.send(header, rank, PUSH))
            push.requests.append(self._endpoint.send(part, rank, PAYLOAD))
            self.bytes_pushed += part.nbytes + HEADER.itemsize
        self._pushes.append(push)
        return push

    def leave(self) -> None:
        """Tell the shards that this replica will push no more."""
        self._tell(THROUGH)
        self._endpoint.wait_all(
            self._telling, self._timeout, f"the shards on ranks {self._shards} to hear that we leave"
        )

    def wait_for_the_slowest(self, clock: int, lead: int) -> None:
        """Wait until no replica in training is more than `lead` steps behind `clock`; DeadlineExpired as ever."""
        began = self._endpoint.clock()
        pause = SHORTEST_PAUSE
        while clock - self._slowest() > lead:
            if self._endpoint.clock() - began > self._timeout:
                raise DeadlineExpired(
                    f"rank {self._endpoint.rank} waited {self._timeout:g} s for the slowest replica, more than "
                    f"{lead} steps behind"
                )
            # Nothing comes with this tag: it only lets time pass.
            self._endpoint.wait_message(pause, tag=NOTHING)
            pause = min(2 * pause, LONGEST_PAUSE)
        self.seconds_fetching += self._endpoint.clock() - began

    def records(self) -> np.ndarray:
        """What the shards say of themselves now: RECORD, [shards]. DeadlineExpired if they do not answer."""
        told = np.zeros(len(self._shards), RECORD)
        requests = [self._window.get(told[shard : shard + 1], rank) for shard, rank in enumerate(self._shards)]
        self._endpoint.wait_all(requests, self._timeout, f"the records of the shards on ranks {self._shards}")
        return told

    def wait_fetch(self, fetch: Fetch) -> None:
        """Wait until `fetch` is done; DeadlineExpired if the shards do not answer."""
        began = self._endpoint.clock()
        self._endpoint.wait_all(fetch.requests, self._timeout, f"a fetch from the shards on ranks {self._shards}")
        self.seconds_fetching += self._endpoint.clock() - began

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
        self.seconds_pushing += self._endpoint.clock() - began

    def install(self, fetch: Fetch, parameters: np.ndarray, accrued: np.ndarray | None, rate: float) -> np.ndarray:
        """Bring a finished fetch into `parameters`, shape (size,), keeping the invariant above.

        `accrued`: the sum of the gradients that are not pushed yet, None if there are none. Returns the
        counts [shards] of the fetch.
        """
        self._hear()
        counts = fetch.records["count"].copy()
        for shard, (start, stop) in enumerate(self._placement.intervals):
            lacking = [p.gradient for p in self._pushes if not 0 <= p.counts[shard] <= counts[shard]]
            lacking += [] if accrued is None else [accrued]
            lacking = [gradient[start:stop] for gradient in lacking] if rate else []
            values, here = fetch.values[start:stop], parameters[start:stop]
            if values.dtype != here.dtype:
                widen(values, here)
            elif lacking:
                step_from(values, lacking.pop(), rate, here)  # one pass instead of two
            else:
                np.copyto(here, values)
            for gradient in lacking:
                sgd(here, gradient, rate)
        self._fetch = None
        self._forget()
        return counts

    def _forget(self) -> None:
        """Let go of the pushes that are done, unless a fetch under way may have begun before they were."""
        if self._fetch is not None:
            return
        under_way = []
        for push in self._pushes:
            if not push.done():
                under_way.append(push)
            elif push.wired is not push.gradient:
                self._wire_buffers.append(push.wired)
        self._pushes = under_way

    def _as_wired(self, gradient: np.ndarray) -> np.ndarray:
        if self._push_dtype == self._dtype:
            return gradient
        wired = self._wire_buffers.pop() if self._wire_buffers else np.empty(gradient.size, self._push_dtype)
        narrow_carrying(gradient, self._carry, wired)
        return wired

    def _tell(self, kind: int) -> None:
        self._telling = [request for request in self._telling if not request.done()]
        for rank in self._shards:
            header = record(HEADER, kind=kind, replica=self._replica)
            self._telling.append(self._endpoint.send(header, rank, PUSH))

    def _slowest(self) -> int:
        """The steps of the slowest replica in training, as shard 0 knows them."""
        told = np.zeros(1, RECORD)
        request = self._window.get(told, self._shards[0])
        self._endpoint.wait_all([request], self._timeout, f"the record of the shard on rank {self._shards[0]}")
        return int(told["slowest"][0])

    def _hear(self) -> None:
        """Take in the acknowledgements that have arrived."""
        if not self._pushes:
            return  # others of this rank may expect some
        while (envelope := self._endpoint.probe(tag=APPLIED)) is not None:
            said = np.zeros(1, ACKNOWLEDGEMENT)
            request = self._endpoint.receive(said, envelope.source, APPLIED)
            self._endpoint.wait_all([request], self._timeout, f"an acknowledgement from rank {envelope.source}")
            for push in self._pushes:
                if push.sequence == said["sequence"][0]:
                    push.counts[self._shards.index(envelope.source)] = said["count"][0]
