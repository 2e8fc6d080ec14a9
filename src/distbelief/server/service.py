"""The service of a shard: receives pushes, applies them, acknowledges them."""

import math

import numpy as np

from distbelief.comm.endpoint import Endpoint, Envelope, Request
from distbelief.server.messages import ACKNOWLEDGEMENT, APPLIED, HEADER, PAYLOAD, PUSH, record
from distbelief.server.shard import Shard


class Service:
    """One shard's part in a rank's loop (see algorithms.loop). Fetches are one-sided: it never sees them."""

    tags = (PUSH,)
    finished = False  # a shard serves until the coordinator ends the job

    def __init__(self, endpoint: Endpoint, shard: Shard, timeout: float):
        self._endpoint = endpoint
        self._shard = shard
        self._timeout = timeout
        self._header = np.zeros(1, HEADER)
        self._gradient = np.empty_like(shard.parameters)
        self._acknowledging: list[Request] = []

    def work(self) -> float:
        """Nothing to do between messages."""
        return math.inf

    def take(self, envelope: Envelope) -> None:
        """Receive the push whose header waits in `envelope`, apply it, acknowledge it. Local.

        Raises RuntimeError for a push of another interval, DeadlineExpired if its payload does not come.
        """
        endpoint, shard, source = self._endpoint, self._shard, envelope.source
        endpoint.wait_all(
            [endpoint.receive(self._header, source, PUSH)], self._timeout, f"the header of a push from rank {source}"
        )
        header = self._header[0]
        if (header["start"], header["stop"]) != shard.interval:
            raise RuntimeError(
                f"rank {source} pushed the interval {header['start']}..{header['stop']} to a shard of "
                f"{shard.interval.start}..{shard.interval.stop}"
            )
        endpoint.wait_all(
            [endpoint.receive(self._gradient, source, PAYLOAD)],
            self._timeout,
            f"the gradient of push {header['sequence']} from rank {source}",
        )
        endpoint.charge(nbytes=shard.traffic)
        shard.apply(self._gradient, int(header["count"]))
        reply = record(ACKNOWLEDGEMENT, sequence=header["sequence"], count=shard.count)
        self._acknowledging = [request for request in self._acknowledging if not request.done()]
        self._acknowledging.append(endpoint.send(reply, source, APPLIED))
