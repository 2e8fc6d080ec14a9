"""The coordinator's hold on the vectors of all shards: commands go out, scalars come back (optim.space.Space)."""

from collections.abc import Callable, Sequence

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Envelope, Request
from distbelief.optim.space import PARAMETERS, Combine, Command, Fill, Multiply
from distbelief.server.messages import record
from distbelief.server.program import answer_sizes, encode
from distbelief.server.vectors import ABORT, ANSWER, ANSWER_RECORD, COMMIT, RUN, VECTORS, VECTORS_RECORD

# While shards have nothing to answer, they are asked for a sign of life so often (in timeouts).
ASK = 1 / 4


class ShardedSpace:
    """A part of the coordinator's loop (algorithms.loop), which the shard on its own rank is, too. All is Local."""

    tags = (ANSWER,)
    finished = False

    def __init__(
        self,
        endpoint: Endpoint,
        shards: Sequence[int],
        names: Sequence[str],
        timeout: float,
        wait: Callable[[Callable[[], bool]], None],
    ):
        """`shards`: the rank of each; `wait(until)`: goes on serving on this rank until `until()`."""
        self._endpoint = endpoint
        self._shards = list(shards)
        self._names = list(names)
        self._timeout = timeout
        self._wait = wait
        self.point = 0
        """Counts the programs that have changed PARAMETERS: another number, other parameters to fetch."""
        self._number = 0  # of the latest program
        self._answered = {rank: 0 for rank in shards}  # likewise, by the shard's rank
        self._answers: dict[int, np.ndarray] = {}  # to the latest program
        self._heard = {rank: endpoint.clock() for rank in shards}
        self._sending: list[Request] = []

    def run(self, commands: Sequence[Command]) -> list[np.ndarray]:
        """See `optim.space.Space.run`. Answers are added up in the order of the shards: the same sum every time.

        Raises DeadlineExpired if a shard does not answer.
        """
        number = self.post(commands)
        self._wait(lambda: all(answered >= number for answered in self._answered.values()))
        total = np.sum([self._answers[rank] for rank in self._shards], axis=0)
        shapes = answer_sizes(commands)
        ends = np.cumsum([rows * columns for rows, columns in shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(total, ends), shapes, strict=False)]

    def post(self, commands: Sequence[Command]) -> int:
        """Have `commands` carried out, none of which has an answer, before whatever is said to the shards later.

        Returns the number of the program.
        """
        if not self._late():
            now = self._endpoint.clock()
            self._heard = {rank: now for rank in self._shards}  # they owed nothing until now
        self.point += any(isinstance(c, Combine | Multiply | Fill) and c.target == PARAMETERS for c in commands)
        self._number += 1
        self._answers = {}
        self._tell(RUN, self._number, encode(commands, self._names))
        return self._number

    def commit(self, evaluation: int, shipment: int, portions: Sequence[int]) -> None:
        """`shipment`, which all shards hold, counts."""
        self._tell(COMMIT, shipment, np.array(portions, "<i4"), evaluation)

    def abort(self, shipment: int) -> None:
        """`shipment` will never count."""
        self._tell(ABORT, shipment)

    def take(self, envelope: Envelope) -> None:
        """Receive an answer."""
        message = np.empty(envelope.nbytes, np.uint8)
        receiving = self._endpoint.receive(message, envelope.source, ANSWER)
        self._endpoint.wait_all([receiving], self._timeout, f"an answer of the shard on rank {envelope.source}")
        number = int(message[: ANSWER_RECORD.itemsize].view(ANSWER_RECORD)["number"][0])
        self._answered[envelope.source] = number
        self._heard[envelope.source] = self._endpoint.clock()
        if number == self._number:
            self._answers[envelope.source] = message[ANSWER_RECORD.itemsize :].view("<f8")

    def work(self) -> float:
        """Ask for signs of life now and then; DeadlineExpired names the shards that are silent too long."""
        now = self._endpoint.clock()
        late = self._late()
        silence = max((now - self._heard[rank] for rank in late), default=0.0)
        if silence >= self._timeout:
            raise DeadlineExpired(
                f"rank {self._endpoint.rank} waited {silence:.0f} s for the shards on ranks {late} to answer"
            )
        if late:
            return self._timeout - silence
        quiet = now - min(self._heard.values())
        if quiet < ASK * self._timeout:
            return ASK * self._timeout - quiet
        self.post([])
        return ASK * self._timeout

    def _late(self) -> list[int]:
        """The ranks of the shards that owe an answer."""
        return [rank for rank, answered in self._answered.items() if answered < self._number]

    def _tell(self, kind: int, number: int, rest: np.ndarray | None = None, evaluation: int = 0) -> None:
        said = record(VECTORS_RECORD, kind=kind, number=number, evaluation=evaluation)
        pieces = [said] if rest is None else [said, rest]
        message = np.concatenate([piece.view(np.uint8) for piece in pieces])
        self._sending = [request for request in self._sending if not request.done()]
        self._sending += [self._endpoint.send(message, rank, VECTORS) for rank in self._shards]
