"""A shard of Sandblaster: its interval of every vector, the coordinator's commands on them, and shipments.

Dean et al. 2012, section 4.2: the coordinator's commands "can be performed by each parameter server shard
independently, with the results being stored locally on the same shard".
"""

from collections.abc import Iterable, Sequence

import numpy as np

from distbelief.comm.endpoint import Endpoint, Envelope, Request, Window
from distbelief.optim.space import GRADIENT, PARAMETERS
from distbelief.optim.vectors import Vectors
from distbelief.server.messages import record
from distbelief.server.placement import Interval, Placement
from distbelief.server.program import decode, vectors_moved
from distbelief.server.staging import SHIPMENT, Staging

# Tags: what the coordinator tells a shard, and what that answers.
VECTORS, ANSWER = 30, 31

# Kinds of messages to a shard. RUN: a program follows. COMMIT: the shipment counts; its portions follow, int32.
# ABORT: the shipment never counts. They are obeyed in the order in which they were sent.
RUN, COMMIT, ABORT = range(3)

VECTORS_RECORD = np.dtype(
    [
        ("kind", "<i4"),
        ("unused", "<i4"),
        ("number", "<i8"),  # of the program or shipment
        ("evaluation", "<i8"),  # of a COMMIT
    ]
)
ANSWER_RECORD = np.dtype([("number", "<i8")])  # of the program; followed by its dot products, float64


def read_parameters(
    endpoint: Endpoint,
    window: Window,
    placement: Placement,
    shards: Sequence[int],
    into: np.ndarray,
    timeout: float,
    intervals: Iterable[Interval] | None = None,
) -> None:
    """Read PARAMETERS from the windows of the shards (their ranks) into `into`. Local.

    `intervals`: of the flat vector, which `into` is made of, in order; None: all of it. DeadlineExpired if a shard does
    not answer.
    """
    requests, begin = [], 0
    for shard, (start, stop) in placement.intersect([Interval(0, placement.size)] if intervals is None else intervals):
        part, begin = into[begin : begin + stop - start], begin + stop - start
        offset = (start - placement.intervals[shard].start) * into.itemsize
        requests.append(window.get(part, shards[shard], offset))
    assert begin == into.size, f"intervals of {begin} elements for {into.size}"
    endpoint.wait_all(requests, timeout, f"a fetch from the shards on ranks {list(shards)}")


class VectorService:
    """A shard's part in a rank's loop (algorithms.loop). PARAMETERS lie in the window, for replicas to fetch."""

    tags = (VECTORS, SHIPMENT)
    finished = False

    def __init__(
        self,
        endpoint: Endpoint,
        window: Window,
        interval: Interval,
        values: np.ndarray,
        names: Sequence[str],
        coordinator: int,
        timeout: float,
    ):
        """`values`: the interval's first parameters, shape (interval.size,); `names`: of all vectors, in the order
        that the coordinator has them in, too. Local.
        """
        self._endpoint = endpoint
        self._window = window
        self._names = list(names)
        self._coordinator = coordinator
        self._timeout = timeout
        exposed = window.local[: values.nbytes].view(values.dtype)
        exposed[:] = values
        window.sync()
        self.vectors = Vectors(names, interval.size, values.dtype, {PARAMETERS: exposed})
        self._staging = Staging(endpoint, interval, values.dtype, coordinator, timeout)
        self._evaluation = -1
        self._counted: set[int] = set()  # portions in this evaluation's gradient
        self._answering: list[Request] = []

    @property
    def holding(self) -> int:
        """Shipments that are here, and neither count nor have been aborted."""
        return self._staging.holding

    def take(self, envelope: Envelope) -> None:
        """Obey the message that waits in `envelope`."""
        if envelope.tag == SHIPMENT:
            self._staging.take(envelope)
            return
        message = np.empty(envelope.nbytes, np.uint8)
        receiving = self._endpoint.receive(message, envelope.source, VECTORS)
        self._endpoint.wait_all([receiving], self._timeout, f"a message from rank {envelope.source}")
        order, rest = message[: VECTORS_RECORD.itemsize].view(VECTORS_RECORD)[0], message[VECTORS_RECORD.itemsize :]
        kind, number = int(order["kind"]), int(order["number"])
        if kind == RUN:
            self._run(number, rest)
        elif kind == COMMIT:
            self._commit(number, rest.view("<i4"), int(order["evaluation"]))
        elif kind == ABORT:
            self._staging.abort(number)
        else:
            raise RuntimeError(f"shard on rank {self._endpoint.rank}: a message of unknown kind {kind}")

    def work(self) -> float:
        return self._staging.work()

    def _run(self, number: int, program: np.ndarray) -> None:
        commands = decode(program, self._names)
        answers = self.vectors.run(commands)
        self._window.sync()
        moved = sum(map(vectors_moved, commands)) * self.vectors[PARAMETERS].nbytes
        if moved:
            self._endpoint.charge(nbytes=moved)
        said = record(ANSWER_RECORD, number=number)
        answer = np.concatenate([piece.reshape(-1).view(np.uint8) for piece in (said, *answers)])
        self._answering = [request for request in self._answering if not request.done()]
        self._answering.append(self._endpoint.send(answer, self._coordinator, ANSWER))

    def _commit(self, number: int, portions: np.ndarray, evaluation: int) -> None:
        if evaluation != self._evaluation:
            self._evaluation, self._counted = evaluation, set()
        assert self._counted.isdisjoint(portions.tolist()), f"shipment {number} counts a portion for the second time"
        self._counted.update(portions.tolist())
        self._staging.commit(number, portions, self.vectors[GRADIENT])
