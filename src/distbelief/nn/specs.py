"""Descriptions of layers, as they stand in a configuration: frozen, and without the shapes that follow from below.

To add a kind: a description with a tag of its own and `layer`, a name in `LayerSpec`.
"""

from typing import Annotated, Literal

import msgspec

from distbelief.nn.layers import Convolution, Dense, Layer, LocallyConnected, Normalise, Pool, Shape

Size = Annotated[int, msgspec.Meta(ge=1)]
# Lists of fixed length: tuples of fixed length in a union crash msgspec 0.22 when garbage is collected.
Extent = Size | Annotated[list[Size], msgspec.Meta(min_length=2, max_length=2)]
"""Of a window: a square, or [height, width]."""
Inputs = Size | Annotated[list[Size], msgspec.Meta(min_length=3, max_length=3)]
"""Of a network: the numbers in one example, or [H, W, C] of an image."""
Activation = Literal["linear", "sigmoid", "tanh", "relu"]


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    pass


class DenseSpec(_Spec, tag="dense"):
    """Every output sees every input; an image is seen flattened."""

    outputs: Size
    activation: Activation = "linear"

    def layer(self, name: str, below: Shape) -> Layer:
        return Dense(name, below, self.outputs, self.activation)


class LocalSpec(_Spec, tag="local"):
    """Filters over windows, others at each position."""

    maps: Size
    window: Extent
    stride: Size = 1
    activation: Activation = "linear"

    def layer(self, name: str, below: Shape) -> Layer:
        return LocallyConnected(name, below, self.maps, self.window, self.stride, self.activation)


class ConvolutionSpec(_Spec, tag="convolution"):
    """Filters over windows, the same at all positions."""

    maps: Size
    window: Extent
    stride: Size = 1
    activation: Activation = "linear"

    def layer(self, name: str, below: Shape) -> Layer:
        return Convolution(name, below, self.maps, self.window, self.stride, self.activation)


class PoolSpec(_Spec, tag="pool"):
    window: Extent
    stride: Size | None = None
    """Pixels from one window to the next; None: the window's size."""
    function: Literal["l2", "max", "average"] = "l2"

    def layer(self, name: str, below: Shape) -> Layer:
        return Pool(name, below, self.window, self.stride, self.function)


class NormaliseSpec(_Spec, tag="normalise"):
    """Local contrast normalisation."""

    window: Extent = 5
    """Odd."""
    floor: Annotated[float, msgspec.Meta(gt=0)] = 0.01
    """The least that is divided by."""

    def layer(self, name: str, below: Shape) -> Layer:
        return Normalise(name, below, self.window, self.floor)


LayerSpec = DenseSpec | LocalSpec | ConvolutionSpec | PoolSpec | NormaliseSpec
LayerSpecs = Annotated[list[LayerSpec], msgspec.Meta(min_length=1)]
LossName = Literal["softmax", "logistic", "squared"]
