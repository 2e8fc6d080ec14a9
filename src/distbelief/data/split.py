"""Who gets which examples: held out from training, or a replica's own part."""

import numpy as np

from distbelief.data.shuffle import random_order
from distbelief.errors import UserError

# Keeps the held-out choice independent of the orders of batches, whose keys are (replica, epoch).
_HELD_OUT_KEY = (0, 0, 1)


def held_out(examples: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Set `count` of `examples` aside at random: the indices to train on, and those held out.

    Both are sorted int64, disjoint, and together 0..examples-1. The same arguments give the same split everywhere.

    Local. Raises UserError if `count` is negative or leaves nothing to train on.
    """
    if not 0 <= count < examples:
        raise UserError(f"data.held_out: {count}, expected 0 to {examples - 1}, as the data has {examples} examples")
    order = random_order(examples, seed, *_HELD_OUT_KEY)
    return np.sort(order[count:]), np.sort(order[:count])


def part(indices: np.ndarray, replica: int, replicas: int) -> np.ndarray:
    """The part of `indices` that replica number `replica` of `replicas` trains on.

    Every `replicas`-th index, not a block of them: files are often sorted by class, and every replica should see
    every class. The parts are disjoint, cover `indices`, and differ by at most one in length.

    Local. Raises UserError, on every replica alike, if there are fewer indices than replicas.
    """
    assert 0 <= replica < replicas, (replica, replicas)
    if len(indices) < replicas:
        noun = "example" if len(indices) == 1 else "examples"
        raise UserError(f"data: {len(indices)} training {noun} for {replicas} replicas, expected at least one for each")
    return indices[replica::replicas]
