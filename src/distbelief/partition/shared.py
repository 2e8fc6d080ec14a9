"""Tensors that all rows of a layer use, as a convolution's weights: every partition needs them whole."""

import numpy as np

from distbelief.comm.endpoint import Request
from distbelief.kernels import narrow, widen
from distbelief.nn.arena import Arena
from distbelief.nn.interval import Interval
from distbelief.nn.layers import BFLOAT16
from distbelief.partition.peers import WEIGHT_GRADIENTS, WEIGHTS, Peers
from distbelief.partition.plan import Plan


class Shared:
    """The shared tensors of one layer, none for most.

    Each partition holds a part of them, as of any tensor: it alone fetches, steps and pushes it. For the time of a
    step all have the whole, in the type of activations: the parts go to the other partitions at its beginning, their
    gradients come back at its end and are added. All methods are Local, but go together on all partitions.
    """

    def __init__(self, peers: Peers, plan: Plan, layer: int, dtype: np.dtype):
        self._peers = peers
        self._number = layer
        self._layer = plan.layers[layer]
        self._parts: dict[str, list[Interval]] = plan.shared_parts(layer)
        self.values = {name: np.empty(self._layer.shapes[name], dtype) for name in self._parts}
        self.gradients = self.like()
        mine = {name: parts[peers.partition].size for name, parts in self._parts.items()}
        self._added = {
            (name, other): np.empty((mine[name], *self._layer.shapes[name][1:]), dtype)
            for name in self._parts
            for other in peers.others
        }
        self._arriving: list[tuple[Request, int, str]] = []
        self._arriving_back: list[tuple[Request, int, str]] = []

    @property
    def nbytes(self) -> int:
        """Of working memory."""
        return sum(a.nbytes for arrays in (self.values, self.gradients, self._added) for a in arrays.values())

    def like(self) -> dict[str, np.ndarray]:
        """Arrays of the whole tensors' shapes, by name."""
        return {name: np.empty_like(value) for name, value in self.values.items()}

    def begin(self, parameters: Arena, backward: bool) -> None:
        """Start to exchange the parts of `parameters`, and post what will come back (`backward`)."""
        self._arriving, self._arriving_back = [], []
        for name, parts in self._parts.items():
            whole, mine = self.values[name], parts[self._peers.partition]
            convert(parameters[name].reshape(-1), whole[slice(*mine)].reshape(-1))
            for other in self._peers.others:
                if parts[other].size:
                    request = self._peers.receive(whole[slice(*parts[other])], other, WEIGHTS + self._number)
                    self._arriving.append((request, other, name))
                if mine.size:
                    self._peers.send(whole[slice(*mine)], other, WEIGHTS + self._number, name)
                    if backward:
                        tag = WEIGHT_GRADIENTS + self._number
                        request = self._peers.receive(self._added[name, other], other, tag)
                        self._arriving_back.append((request, other, name))

    def arrive(self) -> None:
        """Wait until `values` are whole."""
        for request, other, name in self._arriving:
            self._peers.wait(request, other, f"tensor {name}")

    def send_back(self) -> None:
        """Start sending the gradients, which have been computed, to those who hold the parts."""
        for name, parts in self._parts.items():
            for other in self._peers.others:
                if parts[other].size:
                    part = self.gradients[name][slice(*parts[other])]
                    self._peers.send(part, other, WEIGHT_GRADIENTS + self._number, f"the gradient by {name}")

    def arrive_back(self, gradient: Arena) -> None:
        """Wait for the others' gradients by the own part, and write the sum to `gradient`."""
        for name, parts in self._parts.items():
            gradient[name][...] = self.gradients[name][slice(*parts[self._peers.partition])]
        for request, other, name in self._arriving_back:
            self._peers.wait(request, other, f"the gradient by {name}")
            np.add(gradient[name], self._added[name, other], out=gradient[name])


def convert(values: np.ndarray, out: np.ndarray) -> None:
    """out = values, of which either, or both or none, may be bfloat16. Shapes [size]. Local."""
    if values.dtype == out.dtype:
        np.copyto(out, values)
    elif values.dtype == BFLOAT16:
        widen(values, out)
    else:
        narrow(values, out)
