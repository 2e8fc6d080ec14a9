"""A replica's parameters where they are held in bfloat16 (uint16): brought in and stepped by way of float32.

The masters on the shards are float32. A step smaller than a rounding is lost here, but not there.
"""

from collections.abc import Sequence

import numpy as np

from distbelief.kernels import copy_past, narrow, sgd, widen
from distbelief.server.wire import BFLOAT16


def install(
    values: np.ndarray, lacking: Sequence[np.ndarray], rate: float, out: np.ndarray, past: bool = False
) -> None:
    """out = values - rate * the sum of `lacking`. `values` in float32 are spoilt, if they may be written. All [size].
    Local. `past`: `out` is part of more than the caches hold."""
    if values.dtype == BFLOAT16 and not lacking:
        if past:
            copy_past(values.view(np.uint8), out.view(np.uint8))
        else:
            np.copyto(out, values)
        return
    wide = values if values.dtype == np.float32 else _wide(values)
    if lacking and not wide.flags.writeable:
        wide = wide.copy()
    for gradient in lacking:
        sgd(wide, gradient, rate)
    narrow(wide, out)


def step(parameters: np.ndarray, gradient: np.ndarray, rate: float) -> None:
    """parameters -= rate * gradient. Shapes [size]. Local."""
    install(_wide(parameters), [gradient], rate, parameters)


def _wide(values: np.ndarray) -> np.ndarray:
    wide = np.empty(values.size, np.float32)
    widen(values, wide)
    return wide
