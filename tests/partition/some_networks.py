"""Networks to be cut, of every kind of layer: name -> function that gives (layers, loss or None)."""

from partition.plain_layers import Taps, chain

from distbelief.nn import Dense, OneVsAllLogistic, SquaredError
from distbelief.nn.layers import Convolution, LocallyConnected, Normalise, Pool


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


def _images(kind, pooling):
    """The paper's stages: filters, pooling, local contrast normalisation. 26 rows become 21, 10, 10, 8, 8, 8."""
    return chain(
        (26, 7, 2),
        lambda name, below: kind(name, below, 3, (6, 3), 1, "tanh"),
        lambda name, below: Pool(name, below, (3, 2), 2, pooling),
        lambda name, below: Normalise(name, below, (5, 1), 0.1),
        lambda name, below: kind(name, below, 4, (3, 2), 1, "linear"),
        lambda name, below: Normalise(name, below, (3, 1), 0.1),
        lambda name, below: Dense(name, below, 8),
    )


NETWORKS = {
    "dense": dense,
    "locally connected": lambda: (_images(LocallyConnected, "l2"), OneVsAllLogistic()),
    "convolution": lambda: (_images(Convolution, "max"), SquaredError()),
    "untied then tied": lambda: (_stages(tied=False), None),
    "tied then untied": lambda: (_stages(tied=True), None),
}
