"""A fetch: the parameters, one-sided, piece by piece, and with each how many of the client's own pushes it holds."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Request, Window
from distbelief.server.exposed import MARK, Exposed
from distbelief.server.messages import NOTHING, RECORD
from distbelief.server.near import Near
from distbelief.server.pieces import Piece

# What meets an update half-way is read again so much later (seconds).
PAUSE = 50e-6


class Reader:
    """Where a client reads. All methods are Local."""

    def __init__(
        self,
        endpoint: Endpoint,
        window: Window,
        ranks: Sequence[int],
        exposed: Sequence[Exposed],
        pieces: Sequence[Piece],
        starts: Sequence[int],
        wire: np.dtype,
        client: int | None,
    ):
        """`ranks`, `exposed`, `starts`: of each shard its rank, its window, the beginning of its interval.

        `wire`: what travels. `client`: whose marks are read; None has none.
        """
        self.endpoint = endpoint
        self.pieces = pieces
        self.bytes = 0
        self._window = window
        self._ranks = ranks
        self._exposed = exposed
        self._starts = starts
        self._wire = wire
        self._client = client
        self._longest = max(piece.size for piece in pieces)
        self._spare: list[np.ndarray] = []  # buffers of _longest elements
        self._at_once: set[int] = set()
        self._near = {
            shard: Near(window, memory, exposed[shard], starts[shard], wire)
            for shard in {piece.shard for piece in pieces}
            if (memory := window.memory(ranks[shard])) is not None
        }
        self.all_near = len(self._near) == len({piece.shard for piece in pieces})
        """Whether the memory of all its shards lies here."""

    def records(self, into: np.ndarray, shards: Sequence[int]) -> list[Request]:
        """Start reading what some shards say of themselves: RECORD, [shards]."""
        self.bytes += len(shards) * RECORD.itemsize
        return [self._window.get(into[shard : shard + 1], self._ranks[shard]) for shard in shards]

    def applied(self, number: int, into: np.ndarray) -> list[Request]:
        """Start reading which of this client's pieces the shard of a piece has applied: MARK, [1]."""
        return self._mark(number, into, Exposed.applied)

    def begun(self, number: int, into: np.ndarray) -> list[Request]:
        """Start reading which of them it has begun to apply."""
        return self._mark(number, into, Exposed.begun)

    def _mark(self, number: int, into: np.ndarray, place: Callable[[Exposed, int], int]) -> list[Request]:
        if self._client is None:
            return []
        shard = self.pieces[number].shard
        return [self._window.get(into, self._ranks[shard], place(self._exposed[shard], self._client))]

    def values(self, number: int, into: np.ndarray) -> Request:
        """Start reading a piece, and what comes behind it if `into` is longer."""
        piece = self.pieces[number]
        place = self._exposed[piece.shard].place(self._wire)
        place += (piece.start - self._starts[piece.shard]) * self._wire.itemsize
        self.bytes += into.nbytes
        return self._window.get(into, self._ranks[piece.shard], place)

    def near(self, number: int) -> Near | None:
        """The shard of a piece, if its memory lies here."""
        return self._near.get(self.pieces[number].shard)

    def was_there_at_once(self, number: int) -> None:
        """A piece was there as soon as it was asked for."""
        self._at_once.add(self.pieces[number].shard)

    def straight(self, number: int, dtype: np.dtype, wait: bool) -> bool:
        """Whether a piece can be read to where it belongs, into numbers of type `dtype`. `wait`: however long it takes;
        else only where a piece of the same shard has been there at once, as from the memory of the same node."""
        shard = self.pieces[number].shard
        return dtype == self._wire and shard not in self._near and (wait or shard in self._at_once)

    def buffer(self, number: int) -> np.ndarray:
        """A buffer for a piece. The one that was given back last, as that is in the cache."""
        whole = self._spare.pop() if self._spare else np.empty(self._longest, self._wire)
        return whole[: self.pieces[number].size]

    def give_back(self, buffer: np.ndarray) -> None:
        self._spare.append(buffer.base)

    def shard_of(self, number: int) -> str:
        return f"the shard on rank {self._ranks[self.pieces[number].shard]}"


class _Asked:
    """A piece that has been asked for.

    Before the values it reads which of the client's own pieces their shard has applied, after them which it has begun
    to apply: one in between may or may not be in the values, and they have to be read again. MPI promises no order
    among reads, but transports keep it: by copying at once, or by a queue for each pair of ranks.
    """

    def __init__(self, reader: Reader, number: int, buffer: np.ndarray):
        self.values = buffer
        self.applied, self.begun = np.zeros((2, 1), MARK)
        self.requests = [
            *reader.applied(number, self.applied),
            reader.values(number, buffer),
            *reader.begun(number, self.begun),
        ]
        self.ready = False

    def torn(self, own: list[int]) -> bool:
        """Whether the values may or may not hold a push of our own (by its mark)."""
        return any(self.applied[0] < mark <= self.begun[0] for mark in own)


class Fetch:
    """A fetch under way. `missing`: the numbers of the pieces not taken yet; `records` [shards]: see messages.RECORD.

    Pieces are asked for ahead, as long as they take their time. Once one is there at once, as from the memory of the
    same node, where asking is copying, the others are asked for when they are wanted: so they come into the cache.
    Those of a shard whose memory lies here (server.near) are asked for by nobody but who waits for all: the others read
    them where they are.
    """

    def __init__(self, reader: Reader, asked: Sequence[int], shards: int, own: Callable[[int], list[int]]):
        """`asked`: the shards that hold pieces, of `shards` in all.

        `own(number)`: the marks at which pushes of this client that may be on their way hold that piece.
        """
        self._reader = reader
        self._own = own
        self.records = np.zeros(shards, RECORD)
        self._telling = reader.records(self.records, asked)
        self.missing = dict.fromkeys(range(len(reader.pieces)))
        self._asked: dict[int, _Asked] = {}
        if reader.all_near:
            return
        for number in self.missing:
            if reader.near(number) is None and self.ready(number):
                break

    def asked_for(self, number: int) -> bool:
        """Whether a missing piece is on its way, or there."""
        return number in self._asked

    @property
    def untouched(self) -> bool:
        """Whether no piece has been taken, or asked for."""
        return not self._asked and len(self.missing) == len(self._reader.pieces)

    def ready(self, number: int) -> bool:
        """Whether a missing piece is there; asks for it, if nobody has, or again, if it was torn. Never blocks."""
        fresh = number not in self._asked
        if fresh:
            self._asked[number] = _Asked(self._reader, number, self._reader.buffer(number))
        asked = self._asked[number]
        if not asked.ready and all([request.done() for request in asked.requests]):
            if fresh:
                self._reader.was_there_at_once(number)
            if asked.torn(self._own(number)):
                self._asked[number] = _Asked(self._reader, number, asked.values)
            else:
                asked.ready = True
        return asked.ready

    def near(self, number: int) -> Near | None:
        """The shard of a missing piece, if its memory lies here, and nobody has asked for the piece."""
        return None if number in self._asked else self._reader.near(number)

    def took(self, numbers: Sequence[int], nbytes: int) -> None:
        """Pieces have been read where they are."""
        for number in numbers:
            del self.missing[number]
        self._reader.bytes += nbytes

    def shard_of(self, number: int) -> str:
        """Who holds a piece, in words."""
        return self._reader.shard_of(number)

    def wait(self, number: int, timeout: float) -> None:
        """Wait until a missing piece is there; DeadlineExpired if it does not come."""
        endpoint, shard = self._reader.endpoint, self._reader.shard_of(number)
        end = endpoint.clock() + timeout
        asked = None
        while not self.ready(number):
            if asked is not None and self._asked[number] is not asked:  # torn: the update takes its time
                if endpoint.clock() >= end:
                    raise DeadlineExpired(
                        f"rank {endpoint.rank} waited {timeout:g} s for {shard} to be through with an update"
                    )
                endpoint.wait_message(PAUSE, tag=NOTHING)  # nothing comes with this tag: it only lets time pass
            asked = self._asked[number]
            endpoint.wait_all(asked.requests, timeout, f"a fetch from {shard}")

    def wait_all(self, timeout: float) -> None:
        """Wait until all missing pieces are there."""
        for number in self.missing:
            self.wait(number, timeout)

    def missing_among(self, numbers: Iterable[int] | None) -> list[int]:
        """Those of the pieces `numbers` (None: of all) that are missing."""
        return [number for number in (self.missing if numbers is None else numbers) if number in self.missing]

    def read(self, numbers: Sequence[int], into: np.ndarray, timeout: float) -> float:
        """Read missing pieces that nobody has asked for, side by side on one shard, straight to where they belong.

        Without marks: no push of one's own may matter. Returns the seconds that took; DeadlineExpired as ever.
        """
        endpoint = self._reader.endpoint
        began = endpoint.clock()
        request = self._reader.values(numbers[0], into)
        for number in numbers:
            del self.missing[number]
        if not request.done():
            endpoint.wait_all([request], timeout, f"a fetch from {self._reader.shard_of(numbers[0])}")
        return endpoint.clock() - began

    def take(self, number: int) -> tuple[np.ndarray, int]:
        """The values of a piece that is there, and the mark that they stand for; `give_back` them."""
        del self.missing[number]
        asked = self._asked.pop(number)
        return asked.values, int(asked.applied[0])

    def counts(self, timeout: float) -> np.ndarray:
        """The updates that each shard had applied when the fetch began, [shards]."""
        self._reader.endpoint.wait_all(self._telling, timeout, "the records of all shards")
        return self.records["count"].copy()
