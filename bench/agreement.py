"""Rivals must have computed the same before they are timed."""

from collections.abc import Sequence

import numpy as np


def must_agree(words: str, ours: Sequence, theirs: Sequence, tolerance: float) -> None:
    """Raises RuntimeError if numbers or arrays differ by more than `tolerance` of the largest of each."""
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        mine, other = np.asarray(mine, np.float64), np.asarray(other, np.float64)
        if mine.shape != other.shape:
            raise RuntimeError(f"{words}: result {i} has shape {other.shape}, ours {mine.shape}")
        off = np.abs(other - mine).max() / np.abs(mine).max()
        if not off <= tolerance:  # a NaN is none either
            raise RuntimeError(f"{words}: result {i} is off by {off:.1e} of ours, expected {tolerance:.1e} at most")
