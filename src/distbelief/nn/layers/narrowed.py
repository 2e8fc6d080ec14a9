"""Which layers compute in bfloat16, and which from parameters that are stored in it."""

from collections.abc import Sequence

from distbelief.nn.layers.dense import Dense
from distbelief.nn.layers.dense_bfloat16 import DenseBfloat16
from distbelief.nn.layers.layer import Layer


def in_bfloat16(layers: Sequence[Layer]) -> list[Layer]:
    """The same layers, of which the dense ones compute in bfloat16; parameters come in float32."""
    return [DenseBfloat16(layer) if isinstance(layer, Dense) else layer for layer in layers]


def stored_in_bfloat16(layers: Sequence[Layer]) -> list[Layer]:
    """The same layers on parameters that are stored in bfloat16; tied ones get theirs in float32 from an exchange."""
    return [_stored(layer) for layer in layers]


def _stored(layer: Layer) -> Layer:
    if isinstance(layer, Dense):
        return DenseBfloat16(layer, stored=True)
    return layer
