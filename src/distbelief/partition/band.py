"""A partition's rows of one layer, in pieces: those whose input it has computed itself, and those that wait for others.

While rows travel between the partitions, each computes what needs none of them.
"""

import math
from collections.abc import Mapping

import numpy as np

from distbelief.comm.endpoint import Endpoint
from distbelief.nn.arena import Arena
from distbelief.nn.interval import Interval
from distbelief.nn.layers import Layer
from distbelief.partition.boundary import Allocate, Boundary, Inputs
from distbelief.partition.shared import Shared


class Scratch:
    """Working memory that pieces share: as much as the one that needs most."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype
        self._array = np.empty(0, dtype)
        self._size = 0

    @property
    def nbytes(self) -> int:
        return self._size * np.dtype(self.dtype).itemsize

    def reserve(self, size: int) -> None:
        self._size = max(self._size, size)

    @property
    def array(self) -> np.ndarray:
        """1-D. Allocated when it is first asked for."""
        if self._array.size < self._size:
            self._array = np.empty(self._size, self.dtype)
        return self._array


class Piece:
    """Some rows of a band, and the layer that computes just them."""

    def __init__(self, layer: Layer, rows: Interval, band: Interval, own_below: Interval, batch: int, scratch: Scratch):
        self.rows = rows
        self.region = Interval(*layer.region(*rows))
        self.waits = not self.region.within(own_below)
        """Whether the region holds rows of other partitions."""
        self.layer = layer.cut(*rows)
        self._here = rows.seen_from(band.start)
        self._scratch = Scratch(scratch.dtype) if self.layer.keeps_scratch else scratch
        self._scratch.reserve(self.layer.scratch(batch))

    @property
    def kept(self) -> int:
        """Bytes of scratch of its own."""
        return self._scratch.nbytes if self.layer.keeps_scratch else 0

    def forward(self, parameters: Arena, shared: Shared, x: np.ndarray, y: np.ndarray) -> None:
        self.layer.forward(self._part(parameters) | shared.values, x, y, self._scratch.array)

    def backward(self, parameters: Arena, shared: Shared, x, y, dy, gradient: Arena, shared_gradient, dx) -> None:
        """Overwrites its part of `gradient`, `shared_gradient` and `dx`."""
        values, gradients = self._part(parameters) | shared.values, self._part(gradient) | shared_gradient
        self.layer.backward(values, x, y, dy, gradients, dx, self._scratch.array)

    def _part(self, arena: Arena) -> dict[str, np.ndarray]:
        return {name: arena[name][self._here] for name in self.layer.shapes}


def pieces(layer: Layer, band: Interval, own_below: Interval, batch: int, scratch: Scratch) -> list[Piece]:
    """`band` in at most three pieces: the interior, which needs rows in `own_below` only, then the edges around it.

    Where all rows need others, as in a dense layer, they are one piece.
    """
    free = [row for row in range(*band) if Interval(*layer.region(row, row + 1)).within(own_below)]
    if free:
        first, last = free[0], free[-1] + 1
        parts = [Interval(first, last), Interval(band.start, first), Interval(last, band.stop)]
    else:
        parts = [band]
    return [Piece(layer, rows, band, own_below, batch, scratch) for rows in parts if rows.size]


class Band:
    """Computes one partition's rows of a layer, forwards and backwards. All methods are Local."""

    def __init__(
        self,
        endpoint: Endpoint,
        layer: Layer,
        below: Inputs | Boundary,
        above: Boundary,
        shared: Shared,
        batch: int,
        scratch: Scratch,
        allocate: Allocate,
    ):
        """`scratch`: shared by the bands of a network."""
        self._endpoint = endpoint
        self._below = below
        self._above = above
        self._shared = shared
        self.pieces = pieces(layer, above.own, below.own, batch, scratch)
        # Regions overlap: the first piece writes its gradients where they belong, those of the edges are added.
        self._row, dtype = layer.below[1:], scratch.dtype
        self._edge_dx = [allocate(p.region.size * math.prod(self._row) * batch, dtype) for p in self.pieces[1:]]
        self._edge_gradients = [shared.like() for _ in self.pieces[1:]]

    @property
    def nbytes(self) -> int:
        """Of working memory, but for the shared scratch."""
        gradients = [array for edge in self._edge_gradients for array in edge.values()]
        return sum(piece.kept for piece in self.pieces) + sum(array.nbytes for array in self._edge_dx + gradients)

    def forward(self, parameters: Arena) -> None:
        """Compute the band and start to send what others need of it; what it needs of others is waited for last."""
        self._shared.arrive()
        self._forward(parameters, waiting=False)
        self._below.arrive()
        self._forward(parameters, waiting=True)
        self._above.send()

    def backward(self, parameters: Arena, gradient: Arena) -> None:
        """The gradients by the band's tensors and by the rows below; those that others wait for come first."""
        first, edges = self.pieces[:1], self.pieces[1:]
        if not first:
            for total in self._shared.gradients.values():
                total[...] = 0
        covered = first[0].region if first else Interval(0, 0)
        uncovered = self._below.rows.without(covered)
        for rows in uncovered:
            self._below.dy(rows)[...] = 0
        edge_dx = []
        for edge, flat, shared_gradient in zip(edges, self._edge_dx, self._edge_gradients, strict=True):
            dx = self._shaped(flat, edge.region)
            self._backward(edge, parameters, gradient, shared_gradient, dx)
            edge_dx.append((edge.region, dx))
        self._add(edge_dx, uncovered)
        if edges:
            self._below.send_back()
        for piece in first:
            self._backward(piece, parameters, gradient, self._shared.gradients, self._below.dy(piece.region))
        if not edges:
            self._below.send_back()
        self._add(edge_dx, [covered])
        for extra in self._edge_gradients:
            for name, total in self._shared.gradients.items():
                np.add(total, extra[name], out=total)
        self._shared.send_back()

    def _forward(self, parameters: Arena, waiting: bool) -> None:
        for piece in self.pieces:
            if piece.waits == waiting:
                x, y = self._below.y(piece.region), self._above.y(piece.rows)
                piece.forward(parameters, self._shared, x, y)
                self._endpoint.charge(flops=piece.layer.flops(x.shape[-1]))

    def _backward(self, piece: Piece, parameters: Arena, gradient: Arena, shared_gradient: Mapping, dx: np.ndarray):
        x, y, dy = self._below.y(piece.region), self._above.y(piece.rows), self._above.dy(piece.rows)
        piece.backward(parameters, self._shared, x, y, dy, gradient, shared_gradient, dx)
        self._endpoint.charge(flops=2 * piece.layer.flops(x.shape[-1]))

    def _add(self, found: list[tuple[Interval, np.ndarray]], places: list[Interval]) -> None:
        """Add the edges' gradients by the input to the rows below that lie in `places`."""
        for region, dx in found:
            for place in places:
                rows = region.common(place)
                here = self._below.dy(rows)
                np.add(here, dx[rows.seen_from(region.start)], out=here)

    def _shaped(self, flat: np.ndarray, rows: Interval) -> np.ndarray:
        shape = (rows.size, *self._row, self._below.examples)
        return flat[: math.prod(shape)].reshape(shape)
