"""A gradient that is pushed in bfloat16: rounded piece by piece, as it leaves."""

from collections import deque

import numpy as np

from distbelief.comm.endpoint import Request
from distbelief.kernels import narrow_carrying
from distbelief.server.pieces import Piece
from distbelief.server.wire import BFLOAT16

# Buffers that are made at once: NumPy asks for large pages for 4 MB and more. A shard of the same node takes a piece
# from these in two thirds of the time.
TOGETHER = 16


class Rounding:
    """What rounding has lost of a client's gradients so far, and buffers for what is on its way. All methods are Local.

    A buffer is used again as soon as its piece has been taken.
    """

    def __init__(self, pieces: list[Piece]):
        self._pieces = pieces
        self._longest = max(piece.size for piece in pieces)
        self._carry = np.zeros(sum(piece.size for piece in pieces), BFLOAT16)
        self._leaving: deque[tuple[Request, np.ndarray]] = deque()
        self._spare: list[np.ndarray] = []
        self._last = np.empty(0, BFLOAT16)

    def piece(self, number: int, gradient: np.ndarray) -> np.ndarray:
        """A piece of `gradient` and of what earlier roundings lost, rounded. To be told when it `leaves`."""
        while self._leaving and self._leaving[0][0].done():
            self._spare.append(self._leaving.popleft()[1])
        if not self._spare:
            self._spare.extend(np.empty((min(TOGETHER, len(self._pieces)), self._longest), BFLOAT16))
        piece = self._pieces[number]
        self._last = self._spare.pop()
        rounded = self._last[: piece.size]
        narrow_carrying(piece.of(gradient), piece.of(self._carry), rounded)
        return rounded

    def leaves(self, request: Request) -> None:
        """The piece that was rounded last leaves with `request`."""
        self._leaving.append((request, self._last))
