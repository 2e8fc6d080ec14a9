"""How a network is cut over the partitions of a replica: who computes which rows, and who needs them above."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from distbelief.errors import UserError
from distbelief.nn.interval import Interval
from distbelief.nn.layers import Layer


class Message(NamedTuple):
    """Rows of one layer's output that a partition computes and another needs for the layer above."""

    source: int
    dest: int
    rows: Interval


class Plan:
    """A network cut into `partitions`. Every layer's rows are dealt out in contiguous bands of about equal cost.

    Rows are positions on a layer's leading axis: rows of an image, units of a dense layer.

    bands[l][p]: the rows of layer l that partition p computes. regions[l][p]: the rows of the layer below, or of the
    input, that it computes them from. A row that another partition needs is sent to it once (Dean et al. 2012,
    section 3); the input is sent to nobody, as each partition reads its region from the data.
    """

    def __init__(self, layers: Sequence[Layer], partitions: int, may_be_empty: bool = False):
        """Raises UserError if a partition is left with no row of some layer, unless that `may_be_empty`."""
        self.layers = list(layers)
        self.partitions = partitions
        self.bands = [bands(row_costs(layer), partitions) for layer in layers]
        for layer, rows in zip(layers, self.bands, strict=True):
            if not may_be_empty and not all(band.size for band in rows):
                raise UserError(
                    f"{partitions} partitions of layer {layer.name}: it has {layer.shape[0]} rows that can be cut, "
                    "some partition would be left without any"
                )
        self.regions = [
            [Interval(*layer.region(*band)) if band.size else Interval(0, 0) for band in rows]
            for layer, rows in zip(layers, self.bands, strict=True)
        ]

    def sends(self, layer: int, partition: int) -> list[Message]:
        """What `partition` sends on the way from layer `layer` to the one above; nothing from the last."""
        return self._messages(layer, [partition], range(self.partitions))

    def receives(self, layer: int, partition: int) -> list[Message]:
        """What `partition` receives on the way from layer `layer` to the one above; nothing from the last."""
        return self._messages(layer, range(self.partitions), [partition])

    def messages(self, layer: int) -> list[Message]:
        """All that crosses on the way from layer `layer` to the one above; nothing from the last."""
        return self._messages(layer, range(self.partitions), range(self.partitions))

    def traffic(self, layer: int, source: int | None = None, dest: int | None = None) -> int:
        """Numbers that cross on the way up from layer `layer`, for one example: all, or those of one partition."""
        everyone = range(self.partitions)
        sources, dests = everyone if source is None else [source], everyone if dest is None else [dest]
        return sum(message.rows.size for message in self._messages(layer, sources, dests)) * self.row_size(layer)

    def multiply_adds(self, partition: int) -> float:
        """Of one partition's forward pass over one example."""
        cuts = [
            layer.cut(*bands[partition])
            for layer, bands in zip(self.layers, self.bands, strict=True)
            if bands[partition].size
        ]
        return sum(cut.flops(1) for cut in cuts) / 2

    def row_size(self, layer: int) -> int:
        """Numbers in one row of the output of layer `layer`, for one example."""
        return math.prod(self.layers[layer].shape[1:])

    def shared_parts(self, layer: int) -> dict[str, list[Interval]]:
        """The tensors of layer `layer` if all its rows use them whole; by name, the leading indices that each partition
        holds."""
        if not self.layers[layer].tied:
            return {}
        shapes = self.layers[layer].shapes.items()
        return {name: bands(np.ones(shape[0]), self.partitions) for name, shape in shapes}

    def held(self, partition: int) -> dict[str, Interval]:
        """The leading indices of each tensor of the network that `partition` holds, by name in their order."""
        found = {}
        for number, layer in enumerate(self.layers):
            shared = self.shared_parts(number)
            for name in layer.shapes:
                found[name] = shared.get(name, self.bands[number])[partition]
        return found

    def _messages(self, layer: int, sources: Iterable[int], dests: Iterable[int]) -> list[Message]:
        if layer == len(self.layers) - 1:
            return []
        bands, regions = self.bands[layer], self.regions[layer + 1]
        pairs = ((source, dest) for source in sources for dest in dests if source != dest)
        found = (Message(source, dest, bands[source].common(regions[dest])) for source, dest in pairs)
        return [message for message in found if message.rows.size]


def row_costs(layer: Layer) -> np.ndarray:
    """The multiply-adds of each row of a layer, or ones if it has none to tell."""
    rows = layer.shape[0]
    costs = np.array([layer.cut(row, row + 1).flops(1) / 2 for row in range(rows)])
    return costs if costs.sum() > 0 else np.ones(rows)


def bands(costs: np.ndarray, parts: int) -> list[Interval]:
    """Contiguous bands that end where the cost so far is nearest to 1, 2, ... `parts` parts of the whole.

    No band then costs more than its fair part and one row. Bounds of neighbouring layers lie at the same place of the
    picture, so that little has to cross between them.
    """
    upto = np.concatenate([[0.0], np.cumsum(costs)])
    bounds = [0]
    for part in range(1, parts):
        goal = upto[-1] * part / parts
        above = int(np.searchsorted(upto, goal))
        bounds.append(above if upto[above] - goal <= goal - upto[above - 1] else above - 1)
    return [Interval(*pair) for pair in pairwise([*bounds, costs.size])]
