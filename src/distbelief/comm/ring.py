"""The sum of a vector over all ranks, left on all ranks: an all-reduce over send and receive alone.

The vector is cut into as many blocks as there are ranks. Each block travels once around the ring and is added to on
every rank, then its sum travels around once more (reduce-scatter, then all-gather): every rank sends 2 (n - 1) / n
times the vector, the least that is possible (Patarasuk and Yuan, 2009). Blocks travel in pieces, so that a rank
passes one on while the next arrives. As each sum is made once and copied, all ranks have the same bits.
"""

import numpy as np

from distbelief.comm.endpoint import Endpoint, Request

SUM = 30  # tag
PIECE = 1 << 20  # bytes: large against the cost of a message, and still in cache when they are added


class Ring:
    """Sums over the ranks of one endpoint, one after the other."""

    def __init__(self, endpoint: Endpoint, timeout: float):
        """`timeout`: seconds that a rank may keep its neighbour waiting."""
        self._endpoint = endpoint
        self._timeout = timeout
        self._next = (endpoint.rank + 1) % endpoint.size
        self._previous = (endpoint.rank - 1) % endpoint.size
        self._scratch = np.empty((2, PIECE), np.uint8)
        self._sending: list[Request] = []
        self.bytes_reduced = 0
        """Sent to add up."""
        self.bytes_gathered = 0
        """Sent to spread the sums."""
        self.seconds_reducing = 0.0
        self.seconds_gathering = 0.0

    def sum(self, vector: np.ndarray) -> None:
        """Replace `vector`, shape (n,), by its sum over all ranks. Collective over the endpoint.

        Raises DeadlineExpired, naming the neighbour, if a rank does not come.
        """
        if self._endpoint.size == 1:
            return
        began = self._endpoint.clock()
        self._reduce(vector)
        reduced = self._endpoint.clock()
        self._gather(vector)
        self.seconds_reducing += reduced - began
        self.seconds_gathering += self._endpoint.clock() - reduced

    def _reduce(self, vector: np.ndarray) -> None:
        """Block b goes from rank b around to rank b - 1, which then has its sum."""
        rank, last = self._endpoint.rank, self._endpoint.size - 2
        for piece in self._pieces(vector, rank):
            self.bytes_reduced += self._send(piece)
        arriving = [(hop, piece) for hop in range(last + 1) for piece in self._pieces(vector, rank - hop - 1)]
        receives: list[tuple[np.ndarray, Request]] = []
        for number, (hop, piece) in enumerate(arriving):
            for _, ahead in arriving[number + len(receives) : number + 2]:
                receives.append(self._receive(self._buffer(number + len(receives), ahead)))
            came, request = receives.pop(0)
            self._wait(request)
            np.add(piece, came, out=piece)
            self._endpoint.charge(nbytes=3 * piece.nbytes)
            if hop < last:
                self.bytes_reduced += self._send(piece)
        self._finish_sending()  # what has been sent is overwritten from here on

    def _gather(self, vector: np.ndarray) -> None:
        """The sum of block b goes from rank b - 1 around to rank b - 2."""
        rank, last = self._endpoint.rank, self._endpoint.size - 2
        for piece in self._pieces(vector, rank + 1):
            self.bytes_gathered += self._send(piece)
        arriving = [(hop, piece) for hop in range(last + 1) for piece in self._pieces(vector, rank - hop)]
        receives: list[tuple[np.ndarray, Request]] = []
        for number, (hop, piece) in enumerate(arriving):
            for _, ahead in arriving[number + len(receives) : number + 2]:
                receives.append(self._receive(ahead))
            _, request = receives.pop(0)
            self._wait(request)
            if hop < last:
                self.bytes_gathered += self._send(piece)
        self._finish_sending()

    def _pieces(self, vector: np.ndarray, block: int) -> list[np.ndarray]:
        """Views of a block (counted around the ring), in order; none of an empty one."""
        size = self._endpoint.size
        block %= size
        start, stop = block * vector.size // size, (block + 1) * vector.size // size
        step = PIECE // vector.itemsize
        return [vector[at : min(at + step, stop)] for at in range(start, stop, step)]

    def _buffer(self, number: int, piece: np.ndarray) -> np.ndarray:
        return self._scratch[number % 2, : piece.nbytes].view(piece.dtype)

    def _send(self, piece: np.ndarray) -> int:
        self._sending.append(self._endpoint.send(piece, self._next, SUM))
        return piece.nbytes

    def _receive(self, into: np.ndarray) -> tuple[np.ndarray, Request]:
        return into, self._endpoint.receive(into, self._previous, SUM)

    def _wait(self, request: Request) -> None:
        self._endpoint.wait_all([request], self._timeout, f"rank {self._previous} to send its part of a sum")

    def _finish_sending(self) -> None:
        self._endpoint.wait_all(self._sending, self._timeout, f"rank {self._next} to take its part of a sum")
        self._sending = []
