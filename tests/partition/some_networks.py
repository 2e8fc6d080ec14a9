"""Networks to be cut, of every kind of layer: name -> function that gives (layers, loss or None)."""

from partition.plain_layers import Taps, chain

from distbelief.nn import Dense
from distbelief.nn.layers.normalisation import Normalise
from distbelief.nn.layers.pooling import Pool


def dense():
    widths, activations = (13, 11, 17, 9), ("tanh", "relu", "linear")
    return [Dense(f"dense{i}", widths[i], widths[i + 1], name) for i, name in enumerate(activations)], None


def _stages(tied):
    """23 rows that become 20, 10, 8, 8: windows reach over several partitions where bands are thin."""
    return chain(
        (23, 5, 2),
        lambda name, below: Taps(name, below, 4, tied),
        lambda name, below: Pool(name, below, 2),
        lambda name, below: Taps(name, below, 3, not tied),
        lambda name, below: Normalise(name, below, (3, 1)),
        lambda name, below: Dense(name, below, 9, "tanh"),
        lambda name, below: Dense(name, below, 8),
    )


NETWORKS = {
    "dense": dense,
    "untied then tied": lambda: (_stages(tied=False), None),
    "tied then untied": lambda: (_stages(tied=True), None),
}
