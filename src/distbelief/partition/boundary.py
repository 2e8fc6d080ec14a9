"""The output of one layer where it crosses from partition to partition, and its gradient on the way back."""

import math
from collections.abc import Callable

import numpy as np

from distbelief.comm.endpoint import Request
from distbelief.nn.arena import LINE, aligned
from distbelief.nn.interval import Interval
from distbelief.partition.peers import BACKWARD, FORWARD, Peers
from distbelief.partition.plan import Plan

Allocate = Callable[[int, np.dtype], np.ndarray]
"""Makes a 1-D array of so many elements, as np.empty does."""

# Numbers of a network's buffers that are allocated at once: more than the system gives small pages to.
CHUNK = 1 << 23


class Room:
    """Buffers of one type side by side in few large arrays, which get large pages; each begins a line of the cache."""

    def __init__(self, dtype: np.dtype, allocate: Allocate):
        self._dtype = dtype
        self._allocate = allocate
        self._left = np.empty(0, dtype)

    def take(self, size: int, dtype: np.dtype) -> np.ndarray:
        """A buffer of its own (`Allocate`)."""
        assert dtype == self._dtype, f"{dtype} from a room for {self._dtype}"
        line = LINE // dtype.itemsize
        whole = -(-size // line) * line
        if whole > self._left.size:
            self._left = aligned(max(whole, CHUNK), dtype, self._allocate)
        taken, self._left = self._left[:size], self._left[whole:]
        return taken


class Inputs:
    """What stands for a boundary below the first layer: a partition reads its region of the input from the data."""

    def __init__(self, plan: Plan, partition: int, dtype: np.dtype):
        self.own = self.rows = plan.regions[0][partition]
        self.features = self.features_of(plan, partition)
        """The numbers of a flattened example that the region takes."""
        self._below = plan.layers[0].below
        self._dtype = dtype
        self._width = math.prod(self._below[1:])

    @staticmethod
    def features_of(plan: Plan, partition: int) -> Interval:
        """The numbers of a flattened example that `partition` needs."""
        start, stop = plan.regions[0][partition]
        width = math.prod(plan.layers[0].below[1:])
        return Interval(start * width, stop * width)

    def take(self, x_in: np.ndarray) -> None:
        """The examples of a step: [features.size, n], or whole ones, of which the region is taken."""
        region = self.features
        if x_in.shape[0] == math.prod(self._below):
            x_in = x_in[slice(*region)]
        assert x_in.shape[0] == region.size, f"{x_in.shape[0]} numbers of an example, expected {region.size}"
        self.examples = x_in.shape[1]
        self._x = x_in.reshape(self.own.size, *self._below[1:], self.examples)
        self._nothing = np.empty((0, *self._below[1:], self.examples), self._dtype)

    def y(self, rows: Interval) -> np.ndarray:
        """The inputs in `rows`, [rows, ..., n]."""
        return self._x[rows.seen_from(self.own.start)]

    def dy(self, rows: Interval) -> np.ndarray:
        """Nobody needs the gradient by the inputs: [0, ..., n]."""
        return self._nothing

    def arrive(self) -> None:
        """Nothing is on its way."""

    def send_back(self) -> None:
        """Nothing goes back."""


class Boundary:
    """One partition's rows of a layer's output: those that it computes, and those that the layer above needs.

    They lie in one buffer in their order, so what is sent and received are views of it: nothing is packed. Receives
    are posted by `begin`, before anybody computes. For each step: begin, send, arrive, and for a gradient
    send_back, arrive_back. All methods are Local, but go together on all partitions of the replica.
    """

    def __init__(self, peers: Peers, plan: Plan, layer: int, batch: int, dtype: np.dtype, allocate: Allocate):
        self._peers = peers
        self._number = layer
        self._layer = plan.layers[layer]
        self.own = plan.bands[layer][peers.partition]
        last = layer == len(plan.layers) - 1
        self.needed = self.own if last else plan.regions[layer + 1][peers.partition]
        self._outgoing = [(message.dest, message.rows) for message in plan.sends(layer, peers.partition)]
        self._incoming = [(message.source, message.rows) for message in plan.receives(layer, peers.partition)]
        self.rows = self.own.hull(self.needed)
        self._y, self._dy = (allocate(self.rows.size * plan.row_size(layer) * batch, dtype) for _ in range(2))
        # Gradients of rows that others needed, one of each, to be added in a fixed order.
        self._added = [allocate(rows.size * plan.row_size(layer) * batch, dtype) for _, rows in self._outgoing]
        self._receiving: list[Request] = []
        self._receiving_back: list[Request] = []

    @property
    def activations(self) -> int:
        """Bytes for the output."""
        return self._y.nbytes

    @property
    def errors(self) -> int:
        """Bytes for the gradient by it."""
        return self._dy.nbytes + sum(added.nbytes for added in self._added)

    def begin(self, n: int, backward: bool) -> None:
        """Prepare for `n` examples: post what will come up, and (`backward`) what will come back."""
        self.examples = n
        self._receiving = [
            self._peers.receive(self.y(rows), source, FORWARD + self._number) for source, rows in self._incoming
        ]
        if backward:
            self._receiving_back = [
                self._peers.receive(self._shaped(added, rows), dest, BACKWARD + self._number)
                for added, (dest, rows) in zip(self._added, self._outgoing, strict=True)
            ]

    def y(self, rows: Interval) -> np.ndarray:
        """The output in `rows`, [rows, ..., n]."""
        return self._shaped(self._y, self.rows)[rows.seen_from(self.rows.start)]

    def dy(self, rows: Interval) -> np.ndarray:
        """The gradient by the output in `rows`, [rows, ..., n]."""
        return self._shaped(self._dy, self.rows)[rows.seen_from(self.rows.start)]

    def send(self) -> None:
        """Start sending each other partition the rows that it needs, which have been computed."""
        for dest, rows in self._outgoing:
            self._peers.send(self.y(rows), dest, FORWARD + self._number, f"rows {_text(rows)} of {self._layer.name}")

    def arrive(self) -> None:
        """Wait for the rows of other partitions."""
        for request, (source, rows) in zip(self._receiving, self._incoming, strict=True):
            self._peers.wait(request, source, f"rows {_text(rows)} of layer {self._layer.name}")

    def send_back(self) -> None:
        """Start sending the gradients by the rows of other partitions, which have been computed."""
        for source, rows in self._incoming:
            what = f"the gradient by rows {_text(rows)} of layer {self._layer.name}"
            self._peers.send(self.dy(rows), source, BACKWARD + self._number, what)

    def arrive_back(self) -> None:
        """Wait for the gradients by own rows that others have used, and add them."""
        for request, added, (dest, rows) in zip(self._receiving_back, self._added, self._outgoing, strict=True):
            self._peers.wait(request, dest, f"the gradient by rows {_text(rows)} of layer {self._layer.name}")
            mine, other = self.dy(rows), self._shaped(added, rows)
            np.add(mine, other, out=mine)
            self._peers.endpoint.charge(nbytes=3 * other.nbytes)

    def _shaped(self, flat: np.ndarray, rows: Interval) -> np.ndarray:
        """The front of a buffer as [rows, ..., n]: contiguous for a smaller batch too."""
        shape = (rows.size, *self._layer.shape[1:], self.examples)
        return flat[: math.prod(shape)].reshape(shape)


def _text(rows: Interval) -> str:
    return f"{rows.start}..{rows.stop - 1}"
