"""From descriptions to a chain of layers: names, shapes, and what is wrong with them in a user's words."""

from collections.abc import Sequence

from distbelief.errors import UserError
from distbelief.nn.layers import Layer, Shape
from distbelief.nn.losses import LOSSES
from distbelief.nn.specs import Inputs, LayerSpec


def build(specs: Sequence[LayerSpec], inputs: Inputs, loss: str = "softmax") -> list[Layer]:
    """The layers of `specs`, from the inputs up, named by kind and position: dense0, local1. Allocates nothing. Local.

    `inputs`: the numbers of one example, or [H, W, C]; `loss`: a name in LOSSES. Raises UserError naming the layer that
    does not fit what is below it, or the loss above.
    """
    below: Shape = (inputs,) if isinstance(inputs, int) else tuple(inputs)
    layers: list[Layer] = []
    for i, spec in enumerate(specs):
        kind = kind_of(spec)
        try:
            layers.append(spec.layer(f"{kind}{i}", below))
            if i == len(specs) - 1:
                LOSSES[loss]().check(layers[-1].shape)
        except ValueError as error:
            raise UserError(f"{place(i, kind)}: {error}") from None
        below = layers[-1].shape
    return layers


def kind_of(spec: LayerSpec) -> str:
    """Its name in a configuration."""
    return spec.__struct_config__.tag


def place(i: int, kind: str) -> str:
    """What layer `i` is called in messages."""
    return f"network.layers.{i} ({kind})"
