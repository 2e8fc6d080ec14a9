"""A push: a gradient on its way to the shards, piece by piece."""

import numpy as np

from distbelief.comm.endpoint import Request
from distbelief.server.pieces import Piece


class Push:
    """A push under way. `applied` [shards]: which have applied all of it."""

    def __init__(self, sequence: int, gradient: np.ndarray, counts: np.ndarray, clock: int, pieces):
        self.sequence = sequence
        self.gradient = gradient
        self.counts = counts
        self.clock = clock
        # At which mark of its shard each piece has been applied (see server.exposed); 0 before it is sent.
        self.marks = np.zeros(len(pieces), np.int64)
        self.left = np.bincount([piece.shard for piece in pieces], minlength=counts.size)  # to be sent, [shards]
        self.applied = self.left == 0
        self.requests: list[Request] = []

    def note(self, number: int, piece: Piece, mark: int) -> bool:
        """A piece is being sent, and will be applied at `mark`. Returns whether it is the last for its shard."""
        assert self.marks[number] == 0, "a piece is sent once"
        self.marks[number] = mark
        self.left[piece.shard] -= 1
        return bool(self.left[piece.shard] == 0)

    @property
    def sent(self) -> bool:
        """Nothing is left to be sent."""
        return not self.left.any()

    def done(self) -> bool:
        """Every shard has applied it, and its buffer is free."""
        if not self.applied.all():
            return False
        self.requests = [request for request in self.requests if not request.done()]
        return not self.requests
