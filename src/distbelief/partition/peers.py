"""The ranks of one replica, as one of them sees the others."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from distbelief.comm.endpoint import Endpoint, Request

# Tags, above those of the server and the coordinator. Those of a layer's messages have its position added.
STATISTICS, CONTROL = 90, 91
FORWARD, BACKWARD, WEIGHTS, WEIGHT_GRADIENTS = 1000, 2000, 3000, 4000


class Peers:
    """Partition p of a replica is rank `ranks[p]` of the endpoint. All methods are Local."""

    def __init__(self, endpoint: Endpoint, ranks: Sequence[int], timeout: float):
        """`timeout`: seconds that any one wait may take before DeadlineExpired names who is late, and with what."""
        self.endpoint = endpoint
        self.ranks = list(ranks)
        self.partition = self.ranks.index(endpoint.rank)
        self._timeout = timeout
        self._sending: list[tuple[Request, int, str]] = []
        self.bytes_sent: Counter[int] = Counter()
        """What has gone to other partitions, by tag."""

    def __len__(self) -> int:
        return len(self.ranks)

    @property
    def others(self) -> list[int]:
        return [partition for partition in range(len(self)) if partition != self.partition]

    def send(self, buffer: np.ndarray, partition: int, tag: int, what: str) -> None:
        """Start sending; `buffer` must stay as it is until `settle`."""
        request = self.endpoint.send(buffer, self.ranks[partition], tag)
        self._sending.append((request, partition, what))
        self.bytes_sent[tag] += buffer.nbytes

    def receive(self, buffer: np.ndarray, partition: int, tag: int) -> Request:
        return self.endpoint.receive(buffer, self.ranks[partition], tag)

    def wait(self, request: Request, partition: int, what: str) -> None:
        """Wait for what was to be received from `partition`; DeadlineExpired names it, its rank and `what`."""
        self.endpoint.wait_all(
            [request],
            self._timeout,
            f"{what} from partition {partition} of the replica (rank {self.ranks[partition]})",
        )

    def settle(self) -> None:
        """Wait until the others have taken everything that was sent to them."""
        for request, partition, what in self._sending:
            self.endpoint.wait_all(
                [request],
                self._timeout,
                f"partition {partition} of the replica (rank {self.ranks[partition]}) to take {what}",
            )
        self._sending.clear()

    def share(self, values: np.ndarray, what: str) -> np.ndarray:
        """`values` of every partition, stacked by partition: [P, *values.shape]. Collective over the replica."""
        everyone = np.empty((len(self), *values.shape), values.dtype)
        everyone[self.partition] = values
        receiving = [(self.receive(everyone[other], other, STATISTICS), other) for other in self.others]
        for other in self.others:
            self.send(everyone[self.partition], other, STATISTICS, what)
        for request, other in receiving:
            self.wait(request, other, what)
        return everyone
