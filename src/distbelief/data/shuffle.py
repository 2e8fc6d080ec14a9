"""Random orders that are the same on every machine and with every release of NumPy.

NumPy promises that SeedSequence and the raw output of its bit generators never change; it promises no such thing of
`Generator.permutation`. A run of ranks with unlike NumPys, or a rerun years later, must see the data in the same
order, so orders are made of raw output alone.
"""

import numpy as np


def random_order(count: int, seed: int, *key: int) -> np.ndarray:
    """A random order of 0..count-1, int64 `[count]`, that depends on `count`, `seed` and `key` alone.

    Orders of unlike keys (all entries are non-negative and below 2**32) are independent of each other. Local.
    """
    assert seed >= 0 and all(0 <= entry < 2**32 for entry in key), (seed, key)
    # A spawn key, not a longer seed: SeedSequence pads with zeros, so seeds [7] and [7, 0] would be the same.
    raw = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)).random_raw(count)
    # Sorting random numbers gives every order the same chance (but for ties: 1e-9 for 100,000 of 64 bits).
    return np.argsort(raw, kind="stable").astype(np.int64, copy=False)
