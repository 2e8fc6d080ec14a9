"""A partition of a replica that is not its head: it does what the head does, and has a part of everything."""

import math
from collections import deque

import numpy as np

from distbelief.algorithms.sandblaster.messages import HERE, REVOKE, STEP, WORK, WORK_RECORD
from distbelief.algorithms.sandblaster.worker import Worker
from distbelief.comm.endpoint import DeadlineExpired, Endpoint, Envelope, Request


class Follower:
    """A part of its rank's loop (algorithms.loop). All methods are Local."""

    tags = (WORK,)
    finished = False

    def __init__(self, endpoint: Endpoint, head: int, worker: Worker, timeout: float):
        """`head`: the rank of partition 0."""
        self._endpoint = endpoint
        self._head = head
        self._worker = worker
        self._timeout = timeout
        self._orders: deque[np.void] = deque()
        self._broken = False  # the other ranks of the replica were not there for a minibatch: see Replica
        self._telling: list[Request] = []

    def take(self, envelope: Envelope) -> None:
        """Hear what the head does."""
        said = np.zeros(1, WORK_RECORD)
        receiving = self._endpoint.receive(said, envelope.source, WORK)
        self._endpoint.wait_all([receiving], self._timeout, f"an order of rank {envelope.source}")
        self._orders.append(said[0])

    def work(self) -> float:
        """Do one thing; returns 0 while there is more to do."""
        self._worker.reclaim()
        if self._broken or not self._orders:
            return math.inf
        order = self._orders.popleft()
        try:
            self._worker.carry_out(order)
        except DeadlineExpired:
            if order["kind"] != STEP:
                raise
            self._broken = True
            return math.inf
        if order["kind"] == REVOKE:
            self._telling = [request for request in self._telling if not request.done()]
            self._telling.append(self._endpoint.send(np.zeros(0, np.uint8), self._head, HERE))
        return 0.0
