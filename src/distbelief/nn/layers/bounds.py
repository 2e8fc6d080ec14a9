"""Gradients that are finite for certain: told from what they are summed of, which is far less to look at."""

import math

import numpy as np

from distbelief.kernels import largest

# Of the largest number there is: so sums of a million such gradients are finite, too, which nobody looks at. Roundings,
# to bfloat16 and in sums, enlarge what is bounded by far less.
MOST = 2.0**-20


def bounded(terms: int, x: np.ndarray, y: np.ndarray | None, dy: np.ndarray, numbers: int) -> bool:
    """Whether sums of `terms` products of an x with a dy, and of as many dy, are finite in whatever order. Local.

    `y`: None, or outputs of the activation whose derivative dy is multiplied by first: no more than 1, where y is a
    number. `numbers`: of the sums. False if they are not bounded so, and also where they are hardly more than there
    is to look at here. Arrays are C-contiguous: float32, float64, or bfloat16 as uint16.
    """
    if x.size + dy.size + (0 if y is None else y.size) >= numbers:
        return False
    if y is not None and not math.isfinite(_largest(y)):
        return False
    most = float(np.finfo(np.float64 if dy.dtype == np.float64 else np.float32).max)
    return terms * max(1.0, _largest(x)) * max(1.0, _largest(dy)) <= MOST * most


def _largest(values: np.ndarray) -> float:
    return largest(values.reshape(-1))
