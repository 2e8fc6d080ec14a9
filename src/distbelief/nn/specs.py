"""Descriptions of layers, as they stand in a configuration: frozen, and without the shapes that follow from below.

To add a kind: a description with a tag of its own and `layer`, a name in `LayerSpec`.
"""

from typing import Annotated, Literal

import msgspec

from distbelief.nn.layers import Dense, Layer, Shape

Size = Annotated[int, msgspec.Meta(ge=1)]
Activation = Literal["linear", "sigmoid", "tanh", "relu"]


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    pass


class DenseSpec(_Spec, tag="dense"):
    outputs: Size
    activation: Activation = "linear"

    def layer(self, name: str, below: Shape) -> Layer:
        return Dense(name, below, self.outputs, self.activation)


LayerSpec = DenseSpec
