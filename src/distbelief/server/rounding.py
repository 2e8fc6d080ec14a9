"""A gradient that is pushed in bfloat16: rounded piece by piece, as it leaves."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from distbelief.kernels import narrow_carrying
from distbelief.server.exposed import lines
from distbelief.server.pieces import Piece
from distbelief.server.wire import BFLOAT16

# Buffers that are made at once: NumPy asks for large pages for 4 MB and more. A shard of the same node takes a piece
# from these in two thirds of the time. As many at most lie in a rank's window.
TOGETHER = 32


class Rounded(NamedTuple):
    """A piece, rounded: its values, and where in this rank's window they begin, in bytes; None: they are elsewhere."""

    values: np.ndarray
    place: int | None


class Rounding:
    """What rounding has lost of a client's gradients so far, and buffers for what is on its way. All methods are Local.

    A buffer is used again once its piece has been taken, those in the window before others.
    """

    def __init__(self, pieces: Sequence[Piece], window: np.ndarray | None = None, place: int = 0):
        """`window`: what others can read of this rank's memory, uint8; buffers may take `room` bytes of it, from byte
        `place` on."""
        self._pieces = pieces
        self._longest = _longest(pieces)
        self._carry = np.zeros(sum(piece.size for piece in pieces), BFLOAT16)
        self._leaving: dict[int, deque[tuple[Callable[[], bool], Rounded]]] = {piece.shard: deque() for piece in pieces}
        self._exposed: list[Rounded] = []
        self._others: list[Rounded] = []
        if window is not None:
            step = self._longest * BFLOAT16.itemsize
            for begin in range(place, place + self.room(pieces), step):
                self._exposed.append(Rounded(window[begin : begin + step].view(BFLOAT16), begin))
        self._last: Rounded | None = None

    @staticmethod
    def room(pieces: Sequence[Piece]) -> int:
        """How many bytes of the window are for buffers."""
        return min(TOGETHER, len(pieces)) * _longest(pieces) * BFLOAT16.itemsize

    def piece(self, number: int, gradient: np.ndarray) -> Rounded:
        """A piece of `gradient` and of what earlier roundings lost, rounded. To be told when it `leaves`."""
        piece = self._pieces[number]
        self._last = self._buffer()
        rounded = self._last.values[: piece.size]
        narrow_carrying(piece.of(gradient), piece.of(self._carry), rounded)
        return Rounded(rounded, self._last.place)

    def leaves(self, number: int, taken: Callable[[], bool]) -> None:
        """The piece that was rounded last is on its way until it is `taken`: its shard takes one after the other."""
        self._leaving[self._pieces[number].shard].append((taken, self._last))

    def _buffer(self) -> Rounded:
        if not self._exposed:
            self._collect()
        if self._exposed:
            return self._exposed.pop()
        if not self._others:
            made = np.empty((min(TOGETHER, len(self._pieces)), self._longest), BFLOAT16)
            self._others.extend(Rounded(values, None) for values in made)
        return self._others.pop()

    def _collect(self) -> None:
        for leaving in self._leaving.values():
            while leaving and leaving[0][0]():
                buffer = leaving.popleft()[1]
                (self._others if buffer.place is None else self._exposed).append(buffer)


def _longest(pieces: Sequence[Piece]) -> int:
    """Elements of the largest piece, or some more: in the window buffers begin at a line."""
    return lines(max(piece.size for piece in pieces) * BFLOAT16.itemsize) // BFLOAT16.itemsize
