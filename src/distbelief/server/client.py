"""The client of the parameter server: fetch and push, both asynchronous, piece by piece.

Invariant: once a piece of a fetch is installed, the replica's parameters there are the shard's values less `rate`
times every gradient of its own that those values do not yet hold. So a replica never loses its own steps, however late
its pushes are applied, and one replica alone computes what serial SGD does.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Request, Window
from distbelief.kernels import renew, sgd
from distbelief.server import held
from distbelief.server.exposed import Exposed
from distbelief.server.fetch import PAUSE, Fetch, Reader
from distbelief.server.messages import (
    ACKNOWLEDGEMENT,
    APPLIED,
    FETCHING,
    GRADIENT,
    HEADER,
    NOTHING,
    PUSH,
    RECORD,
    THROUGH,
    payload_tag,
    record,
)
from distbelief.server.near import Near
from distbelief.server.pieces import cut, side_by_side
from distbelief.server.placement import Interval, Placement
from distbelief.server.push import Push
from distbelief.server.rounding import Rounding
from distbelief.server.settings import Server
from distbelief.server.staleness import Compensated
from distbelief.server.wire import wire_dtype

# A replica that waits for the slowest looks this often (seconds).
SHORTEST_PAUSE, LONGEST_PAUSE = 50e-6, 5e-3
# Bytes of parameters that caches hold beside all else. More are written past them: no layer finds its own there.
CACHED = 16 << 20


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
    ):
        """`shards`: the rank of each shard; `timeout`: seconds that any one wait may take.

        `number`: its own among the `clients` that push: the replicas, or their partitions, replica by replica. None
        only reads, and reads the parameters themselves whatever the wire. `intervals`: what it deals with, in the order
        in which it wants it, without overlaps: it talks to no shard but those that hold it. None: everything.
        """
        settings = settings or Server()
        self.pieces = cut(placement, [Interval(0, placement.size)] if intervals is None else intervals)
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
        self._rounding = Rounding(self.pieces) if settings.push_wire == "bfloat16" else None
        self._past = self.size * self._dtype.itemsize > CACHED
        self._fetch: Fetch | None = None  # started, and pieces of it are missing
        self._pushes: list[Push] = []  # those that this fetch, or the next, may lack
        self._sent = np.zeros(len(shards), np.int64)  # pieces of all pushes so far: the shards' marks to come
        self._telling: list[Request] = []
        self._sequence = 0
        self.bytes_pushed = 0
        self.seconds_fetching = 0.0
        """Spent waiting for fetches, and copying what is on the same node."""
        self.seconds_pushing = 0.0
        """Spent waiting for pushes."""

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
        self._fetch = Fetch(self._reader, self._mine, len(self._shards), self._own_marks)
        self.seconds_fetching += self._endpoint.clock() - began
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
        wanted, installed = fetch.missing_among(numbers), []
        if not rate or (accrued is None and not self._pushes):  # nothing can be lacking
            installed = self._read_straight(fetch, wanted, parameters, wait)
        for number in fetch.missing_among(wanted):
            if (near := fetch.near(number)) is not None:
                self._install_near(fetch, near, [number], parameters, accrued, rate)
                installed.append(number)
                continue
            if wait:
                self._wait_for_piece(fetch, number)
            if wait or self._ready(fetch, number):
                self._install(fetch, number, parameters, accrued, rate)
                installed.append(number)
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
        piece = self.pieces[number]
        rounding = self._rounding
        payload = piece.of(push.gradient) if rounding is None else rounding.piece(number, push.gradient)
        mark = self._sent[piece.shard] = self._sent[piece.shard] + 1
        header = record(
            HEADER,
            kind=GRADIENT,
            client=self._number or 0,
            sequence=push.sequence,
            count=push.counts[piece.shard],
            clock=push.clock,
            start=piece.start,
            stop=piece.stop,
            nbytes=payload.nbytes,
            mark=mark,
            last=push.note(number, piece, mark),
        )
        rank = self._shards[piece.shard]
        push.requests.append(self._endpoint.send(header, rank, PUSH))
        push.requests.append(self._endpoint.send(payload, rank, payload_tag(mark)))
        if rounding is not None:
            rounding.leaves(push.requests[-1])
        self.bytes_pushed += payload.nbytes + HEADER.itemsize

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
        self.seconds_fetching += self._endpoint.clock() - began

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

    def _read_straight(self, fetch: Fetch, wanted: Iterable[int], parameters: np.ndarray, wait: bool) -> list[int]:
        """Read pieces straight to where they belong, as many as can be; returns their numbers."""
        read = [
            number
            for number in wanted
            if fetch.near(number)
            or (not fetch.asked_for(number) and self._reader.straight(number, parameters.dtype, wait))
        ]
        for run in side_by_side(self.pieces, read):
            if (near := fetch.near(run[0])) is not None:
                self._install_near(fetch, near, run, parameters, None, 0.0)
            else:
                self.seconds_fetching += fetch.read(run, self._place(run, parameters), self._timeout)
        return read

    def _install(self, fetch: Fetch, number: int, parameters, accrued, rate: float) -> None:
        """Install a piece that is there."""
        values, mark = fetch.take(number)
        lacking = self._lacking(number, mark, accrued, rate)
        self._renew(values, self._place([number], parameters), lacking, rate)
        self._reader.give_back(values)

    def _install_near(self, fetch: Fetch, near: Near, run: list[int], parameters, accrued, rate: float) -> None:
        """Install pieces that lie side by side from where they are; several only where nothing can be lacking.

        One is installed once more if meanwhile the shard was about to apply it from one of our pushes.
        """
        began = self._endpoint.clock()
        number, client, own = run[0], self._number or 0, self._own_marks(run[0]) if rate else []
        values, here = near.values(self.pieces[number].start, self.pieces[run[-1]].stop), self._place(run, parameters)
        while True:
            mark = near.applied(client) if own else 0
            self._renew(values, here, self._lacking(number, mark, accrued, rate), rate)
            if not own or not near.torn(client, mark, own):
                break
            if self._endpoint.clock() - began > self._timeout:
                raise DeadlineExpired(
                    f"rank {self._endpoint.rank} waited {self._timeout:g} s for {fetch.shard_of(number)} to be "
                    "through with an update"
                )
            self._endpoint.wait_message(PAUSE, tag=NOTHING)  # it only lets time pass
        fetch.took(run, values.nbytes)
        self.seconds_fetching += self._endpoint.clock() - began

    def _place(self, run: list[int], vector: np.ndarray) -> np.ndarray:
        """Of a vector of ours, the pieces of `run`, which lie side by side: a view."""
        first, last = self.pieces[run[0]], self.pieces[run[-1]]
        return vector[first.offset : last.offset + last.size]

    def _lacking(self, number: int, mark: int, accrued: np.ndarray | None, rate: float) -> list[np.ndarray]:
        """Of a piece, the gradients of ours that its values, which stand for `mark`, do not hold."""
        if not rate:
            return []
        piece = self.pieces[number]
        lacking = [piece.of(push.gradient) for push in self._pushes if not 0 < push.marks[number] <= mark]
        return lacking + ([] if accrued is None else [piece.of(accrued)])

    def _renew(self, values: np.ndarray, here: np.ndarray, lacking: list[np.ndarray], rate: float) -> None:
        """Parameters `here` = values - rate * the sum of `lacking`."""
        if here.dtype == held.BFLOAT16:
            held.install(values, lacking, rate, here)
            return
        # One pass for the first that is lacking; often there is no other.
        renew(values, here, lacking.pop() if lacking else None, rate, self._past)
        for gradient in lacking:
            sgd(here, gradient, rate)

    def _wait_for_piece(self, fetch: Fetch, number: int) -> None:
        began = self._endpoint.clock()
        fetch.wait(number, self._timeout)
        self.seconds_fetching += self._endpoint.clock() - began

    def _ready(self, fetch: Fetch, number: int) -> bool:
        began = self._endpoint.clock()
        ready = fetch.ready(number)
        self.seconds_fetching += self._endpoint.clock() - began
        return ready

    def _own_marks(self, number: int) -> list[int]:
        return [int(push.marks[number]) for push in self._pushes]

    def _forget(self) -> None:
        """Let go of the pushes that are done, unless a fetch under way may have begun before they were."""
        if self._fetch is not None:
            return
        self._pushes = [push for push in self._pushes if not push.done()]

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
