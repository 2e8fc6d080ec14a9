"""From descriptions to a chain of layers: names, shapes, and what is wrong with them in a user's words."""

import math
from collections.abc import Sequence

import msgspec

from distbelief.errors import UserError
from distbelief.explain import explain, plain, stray_number
from distbelief.nn.layers import Layer, Shape
from distbelief.nn.losses import LOSSES
from distbelief.nn.specs import Inputs, LayerSpec, LayerSpecs, LossName

# Numbers in an array, at most: no machine has room for them, and kernels can still count bytes of so many.
_MOST = 1 << 44


class _Described(msgspec.Struct):
    inputs: Inputs
    layers: LayerSpecs
    loss: LossName


def build(specs: Sequence[LayerSpec], inputs: Inputs, loss: str = "softmax") -> list[Layer]:
    """The layers of `specs`, from the inputs up, named by kind and position: dense0, local1. Allocates nothing. Local.

    `inputs`: the numbers of one example, or [H, W, C]; `loss`: a name in LOSSES. Raises UserError naming the layer that
    is not what it may be, or does not fit what is below it, or the loss above.
    """
    described = _checked(specs, inputs, loss)
    below: Shape = (described.inputs,) if isinstance(described.inputs, int) else tuple(described.inputs)
    _expect_countable("network.inputs", below)
    layers: list[Layer] = []
    for i, spec in enumerate(described.layers):
        kind = kind_of(spec)
        try:
            layers.append(spec.layer(f"{kind}{i}", below))
            for name, shape in {"outputs": layers[-1].shape, **layers[-1].shapes}.items():
                _expect_countable(name, shape)
            if i == len(described.layers) - 1:
                LOSSES[loss]().check(layers[-1].shape)
        except UserError as error:
            raise UserError(f"{place(i, kind)}: {error}") from None
        except MemoryError:
            raise UserError(f"{place(i, kind)}: more of {list(below)} below than there is memory for") from None
        below = layers[-1].shape
    return layers


def kind_of(spec: LayerSpec) -> str:
    """Its name in a configuration."""
    return spec.__struct_config__.tag


def place(i: int, kind: str) -> str:
    """What layer `i` is called in messages."""
    return f"network.layers.{i} ({kind})"


def _checked(specs: Sequence[LayerSpec], inputs: Inputs, loss: str) -> _Described:
    """The same after a look at every type and limit, which structs made in Python have not had."""
    table = msgspec.to_builtins({"inputs": inputs, "layers": list(specs), "loss": loss}, enc_hook=plain)
    try:
        described = msgspec.convert(table, _Described)
    except msgspec.ValidationError as error:
        raise UserError(f"network.{': '.join(explain(error, table, _Described))}") from None
    if stray := stray_number(described):
        raise UserError(f"network.{stray[0]}: expected a finite number, found {stray[1]}")
    return described


def _expect_countable(name: str, shape: Shape) -> None:
    if math.prod(shape) > _MOST:
        raise UserError(f"{name} of shape {list(shape)}, expected at most 2^44 numbers")
