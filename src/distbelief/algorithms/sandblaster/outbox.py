"""What the coordinator has to say to the replicas, and how much of it to one that says nothing."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from distbelief.comm.endpoint import Endpoint, Request

# Messages to a replica since it was heard of last. The transport keeps what nobody takes: within a node MPICH has room
# for 64 from one rank to all others, and after that nobody hears of it any more.
UNHEARD = 12
# A replica that takes its messages, and has nothing else to say, says that it lives after so many.
ANSWERED = 4


class Outbox:
    """All methods are Local."""

    def __init__(self, endpoint: Endpoint, replicas: Sequence[int], tag: int):
        """`replicas`: their ranks."""
        self._endpoint = endpoint
        self._replicas = replicas
        self._tag = tag
        self._unheard = [0] * len(replicas)
        self._waiting: list[deque[np.ndarray]] = [deque() for _ in replicas]
        self._sending: list[Request] = []

    def tell(self, replica: int, message: np.ndarray) -> None:
        """Send a message after those before it: now, or once the replica is heard of again."""
        self._waiting[replica].append(message)
        self._send(replica)

    def hear(self, replica: int) -> None:
        """The replica is at work, and takes its messages."""
        self._unheard[replica] = 0
        self._send(replica)

    def _send(self, replica: int) -> None:
        self._sending = [request for request in self._sending if not request.done()]
        while self._waiting[replica] and self._unheard[replica] < UNHEARD:
            message = self._waiting[replica].popleft()
            self._unheard[replica] += 1
            self._sending.append(self._endpoint.send(message, self._replicas[replica], self._tag))
