"""How numbers travel: in the parameters' own type, or in bfloat16 at half the bytes."""

from typing import Literal

import numpy as np

Wire = Literal["native", "bfloat16"]


BFLOAT16 = np.dtype(np.uint16)
"""Its bits: NumPy has no such type."""


def wire_dtype(wire: Wire, dtype: np.dtype) -> np.dtype:
    """The dtype of buffers on the wire, for parameters of `dtype`; bfloat16 numbers are uint16."""
    return BFLOAT16 if wire == "bfloat16" else np.dtype(dtype)
