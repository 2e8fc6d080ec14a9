"""Networks in bfloat16: which layers compute in it, and where their weights come from."""

from collections.abc import Mapping, Sequence

import numpy as np

from distbelief.errors import UserError
from distbelief.kernels import narrow
from distbelief.nn.layers import BFLOAT16, Dense, DenseBfloat16, Layer, LocallyConnected, LocallyConnectedBfloat16

_WIDE = ("float32", "float64")


def wide(dtype: np.dtype | type | str) -> np.dtype:
    """The type of what is not bfloat16 in a network that computes in `dtype`. Raises UserError for any other."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        return np.dtype(np.float32)
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in _WIDE:
        raise UserError(
            f"network.dtype: {dtype if found is None else found}, expected one of: {', '.join(_WIDE)}, bfloat16"
        )
    return found


def computing(layers: Sequence[Layer]) -> list[Layer]:
    """The layers of a network whose dense ones compute in bfloat16."""
    return [DenseBfloat16(layer) if isinstance(layer, Dense) else layer for layer in layers]


def holding(layers: Sequence[Layer], exchanged: bool = False) -> list[Layer]:
    """The layers of a network whose parameters are all bfloat16 (uint16), with no copy of them in float32.

    `exchanged`: but for tied ones, a convolution's, of which partitions exchange the whole in float32. Raises
    ValueError for a layer that cannot have it so: a convolution that is not.
    """
    return [layer if exchanged and layer.tied else _holding(layer) for layer in layers]


def _holding(layer: Layer) -> Layer:
    if isinstance(layer, Dense):
        return DenseBfloat16(layer)
    if isinstance(layer, LocallyConnected):
        return LocallyConnectedBfloat16(layer)
    if layer.shapes:
        raise ValueError(f"{layer.name}: parameters held in bfloat16 are for dense and locally connected layers")
    return layer


class Rounded(Mapping[str, np.ndarray]):
    """Float32 parameters, but for the weights that layers want in bfloat16: these are copies, rounded once a step."""

    def __init__(self, layers: Sequence[Layer]):
        narrow = [layer for layer in layers if isinstance(layer, DenseBfloat16)]
        self._copies = {layer.w: np.empty(layer.shapes[layer.w], BFLOAT16) for layer in narrow}
        self._parameters: Mapping[str, np.ndarray] = {}

    @property
    def nbytes(self) -> int:
        """Of the copies."""
        return sum(copy.nbytes for copy in self._copies.values())

    def take(self, parameters: Mapping[str, np.ndarray], layer: Layer) -> None:
        """From now on a layer's parameters are these."""
        self._parameters = parameters
        for name in layer.weights:
            if name in self._copies:
                narrow(parameters[name].reshape(-1), self._copies[name].reshape(-1))

    def __getitem__(self, name: str) -> np.ndarray:
        copy = self._copies.get(name)
        return self._parameters[name] if copy is None else copy

    def __iter__(self):
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)
