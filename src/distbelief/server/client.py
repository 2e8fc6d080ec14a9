"""The client of the parameter server: fetch and push, both asynchronous, piece by piece.

Invariant: once a piece of a fetch is installed, the replica's parameters there are the shard's values less `rate`
times every gradient of its own that those values do not yet hold. So a replica never loses its own steps, however late
its pushes are applied, and one replica alone computes what serial SGD does.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Request, Window
from distbelief.kernels import CACHED
from distbelief.server.exposed import Exposed
from distbelief.server.fetch import Fetch, Reader
from distbelief.server.installing import Installer
from distbelief.server.messages import (
    ACKNOWLEDGEMENT,
    APPLIED,
    FETCHING,
    HEADER,
    NOTHING,
    PUSH,
    RECORD,
    THROUGH,
    record,
)
from distbelief.server.pieces import cut
from distbelief.server.placement import Interval, Placement
from distbelief.server.push import Push
from distbelief.server.rounding import Rounding
from distbelief.server.sending import Sender
from distbelief.server.settings import Server
from distbelief.server.staleness import Compensated
from distbelief.server.wire import wire_dtype

# A replica that waits for the slowest looks this often (seconds).
SHORTEST_PAUSE, LONGEST_PAUSE = 50e-6, 5e-3


class Client:
    """One rank's access to the shards. All methods are Local.

    Its vectors, of `size` elements, are the concatenation of its intervals of the flat parameter vector; `pieces` are
    what they are cut into, and a piece's number is its place there.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        window: Window,
        placement: Placement,
        shards: Sequence[int],
        dtype,
        timeout: float,
        settings: Server | None = None,
        number: int | None = None,
        clients: int = 1,
        intervals: Iterable[Interval] | None = None,
        room: int | None = None,
    ):
        """`shards`: the rank of each shard; `timeout`: seconds that any one wait may take.

        `number`: its own among the `clients` that push: the replicas, or their partitions, replica by replica. None
        only reads, and reads the parameters themselves whatever the wire. `intervals`: what it deals with, in the order
        in which it wants it, without overlaps: it talks to no shard but those that hold it. None: everything. `room`:
        where in this rank's own memory in `window` the `room_bytes` begin that are this client's; None: there are none.
        """
        settings = settings or Server()
        self.pieces = cut(placement, _all(placement) if intervals is None else intervals)
        self.size = sum(piece.size for piece in self.pieces)
        self._endpoint = endpoint
        self._window = window
        self._shards = shards
        self._mine = sorted({piece.shard for piece in self.pieces})
        self._timeout = timeout
        self._dtype = np.dtype(dtype)
        self._number = number
        self._announce = number is not None and isinstance(settings.staleness, Compensated)
        self._reader = Reader(
            endpoint,
            window,
            shards,
            [Exposed.by(settings, interval.size, self._dtype, clients) for interval in placement.intervals],
            self.pieces,
            [interval.start for interval in placement.intervals],
            wire_dtype("native" if number is None else settings.fetch_wire, self._dtype),
            number,
        )
        rounding = None
        if number is not None and settings.push_wire == "bfloat16":
            rounding = Rounding(self.pieces, None if room is None else window.local, room or 0)
        client = number or 0
        self._sender = Sender(endpoint, window, shards, self.pieces, client, rounding, self._reader.near)
        self._fetch: Fetch | None = None  # started, and pieces of it are missing
        self._pushes: list[Push] = []  # those that this fetch, or the next, may lack
        past = self.size * self._dtype.itemsize > CACHED
        self._installer = Installer(endpoint, self._reader, self.pieces, self._pushes, client, past, timeout)
        self._telling: list[Request] = []
        self._sequence = 0
        self._seconds_waiting = 0.0  # for fetches, besides what the installer has
        self.seconds_pushing = 0.0
        """Spent waiting for pushes."""

    @staticmethod
    def room_bytes(placement: Placement, settings: Server, intervals: Iterable[Interval] | None = None) -> int:
        """How much of its rank's memory in the window a client that pushes is best given: whole lines of the cache."""
        if settings.push_wire != "bfloat16":
            return 0
        return Rounding.room(cut(placement, _all(placement) if intervals is None else intervals))

    @property
    def seconds_fetching(self) -> float:
        """Spent waiting for fetches, and copying what is on the same node."""
        return self._installer.seconds + self._seconds_waiting

    @property
    def bytes_pushed(self) -> int:
        """Headers and payloads."""
        return self._sender.bytes

    @property
    def bytes_fetched(self) -> int:
        """Parameters and records, not marks."""
        return self._reader.bytes

    def fetch(self) -> Fetch:
        """Start reading the parameters and the records of the shards; the one before must be installed."""
        self.hear()
        self._fetch = None
        self._forget()
        if self._announce:
            self._tell(
                [(piece.shard, {"kind": FETCHING, "start": piece.start, "stop": piece.stop}) for piece in self.pieces]
            )
        began = self._endpoint.clock()  # asking is copying, where the memory is that of the same node
        self._fetch = Fetch(self._reader, self._mine, len(self._shards), self._installer.own_marks)
        self._seconds_waiting += self._endpoint.clock() - began
        return self._fetch

    def install(
        self,
        fetch: Fetch,
        parameters: np.ndarray,
        accrued: np.ndarray | None = None,
        rate: float = 0.0,
        numbers: Iterable[int] | None = None,
        wait: bool = True,
    ) -> list[int]:
        """Bring missing pieces of `fetch` into `parameters`, keeping the invariant above; returns their numbers.

        `accrued`: the sum of the gradients that are not pushed yet, None if there are none. `numbers`: of the pieces;
        None: all. `wait`: for those that are not there yet, which else are passed over. Shapes: (size,).
        Raises DeadlineExpired if the shards do not answer.
        """
        installed = self._installer.install(fetch, parameters, accrued, rate, numbers, wait)
        if not fetch.missing:
            self._fetch = None
            self._forget()
        return installed

    def stream(self) -> Iterator[tuple[int, np.ndarray]]:
        """The parameters as they are, piece by piece: where in the flat vector it begins, and its values, valid until
        the next. DeadlineExpired if a shard does not answer."""
        for number, piece in enumerate(self.pieces):
            values = self._reader.buffer(number)
            shard = self._reader.shard_of(number)
            self._endpoint.wait_all([self._reader.values(number, values)], self._timeout, f"parameters of {shard}")
            yield piece.start, values
            self._reader.give_back(values)

    def counts(self, fetch: Fetch) -> np.ndarray:
        """The updates that each shard had applied when `fetch` began, [shards]; 0 where nothing was asked."""
        return fetch.counts(self._timeout)

    def begin_push(self, gradient: np.ndarray, counts: np.ndarray, clock: int = 0) -> Push:
        """A push of `gradient`, shape (size,), to be sent piece by piece; its buffer is the client's until it is done.

        `counts` [shards]: the shards' counts when the parameters it was computed from were fetched; `clock`: the
        steps that the replica has taken.
        """
        assert all(push.gradient is not gradient for push in self._pushes), "this buffer is still in use"
        push = Push(self._sequence, gradient, counts, clock, self.pieces)
        self._sequence += 1
        self._pushes.append(push)
        return push

    def send(self, push: Push, number: int) -> None:
        """Start sending a piece of a push that has begun: its gradient is final. Each piece once, in any order."""
        self._sender.send(push, number)

    def push(self, gradient: np.ndarray, counts: np.ndarray, clock: int = 0) -> Push:
        """`begin_push`, and send everything."""
        push = self.begin_push(gradient, counts, clock)
        for number in range(len(self.pieces)):
            self.send(push, number)
        return push

    def wait_push(self, push: Push) -> None:
        """Wait until `push` is done; DeadlineExpired, naming the shards that have not applied it.

        With no fetch under way its buffer is then the caller's again.
        """
        began = self._endpoint.clock()
        self.hear()
        while not push.applied.all():
            if self._endpoint.wait_message(self._timeout, tag=APPLIED) is None:
                late = [rank for rank, applied in zip(self._shards, push.applied, strict=True) if not applied]
                raise DeadlineExpired(
                    f"rank {self._endpoint.rank} waited {self._timeout:g} s for the shards on ranks {late} "
                    f"to apply push {push.sequence}"
                )
            self.hear()
        self._endpoint.wait_all(push.requests, self._timeout, f"the shards to take push {push.sequence}")
        self._forget()
        self.seconds_pushing += self._endpoint.clock() - began

    def holds(self, gradient: np.ndarray) -> bool:
        """Whether this buffer is a push's, that is not done or that a fetch under way may lack."""
        self.hear()
        self._forget()
        return any(push.gradient is gradient for push in self._pushes)

    def leave(self) -> None:
        """Tell the shards that this replica will push no more."""
        self._tell([(shard, {"kind": THROUGH}) for shard in self._mine])
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
        self._seconds_waiting += self._endpoint.clock() - began

    def records(self) -> np.ndarray:
        """What the shards say of themselves now: RECORD, [shards]. DeadlineExpired if they do not answer."""
        told = np.zeros(len(self._shards), RECORD)
        requests = [self._window.get(told[shard : shard + 1], rank) for shard, rank in enumerate(self._shards)]
        self._endpoint.wait_all(requests, self._timeout, f"the records of the shards on ranks {self._shards}")
        return told

    def hear(self) -> None:
        """Take in the acknowledgements that have arrived."""
        if not self._pushes:
            return  # others of this rank may expect some
        while (envelope := self._endpoint.probe(tag=APPLIED)) is not None:
            said = np.zeros(1, ACKNOWLEDGEMENT)
            request = self._endpoint.receive(said, envelope.source, APPLIED)
            self._endpoint.wait_all([request], self._timeout, f"an acknowledgement from rank {envelope.source}")
            for push in self._pushes:
                if push.sequence == said["sequence"][0]:
                    push.applied[self._shards.index(envelope.source)] = True

    def _forget(self) -> None:
        """Let go of the pushes that are done, unless a fetch under way may have begun before they were."""
        if self._fetch is not None:
            return
        self._pushes[:] = [push for push in self._pushes if not push.done()]

    def _tell(self, headers: Iterable[tuple[int, dict]]) -> None:
        """Send headers without payload, each to a shard."""
        self._telling = [request for request in self._telling if not request.done()]
        for shard, fields in headers:
            header = record(HEADER, client=self._number, **fields)
            self._telling.append(self._endpoint.send(header, self._shards[shard], PUSH))

    def _slowest(self) -> int:
        """The steps of the slowest replica in training, as the first of our shards knows them."""
        told = np.zeros(1, RECORD)
        rank = self._shards[self._mine[0]]
        request = self._window.get(told, rank)
        self._endpoint.wait_all([request], self._timeout, f"the record of the shard on rank {rank}")
        return int(told["slowest"][0])


def _all(placement: Placement) -> list[Interval]:
    return [Interval(0, placement.size)]
