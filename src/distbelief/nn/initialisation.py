"""The numbers that parameters begin with: any part of a tensor can be drawn without the rest."""

import zlib
from collections.abc import Mapping

import numpy as np

from distbelief.kernels import narrow
from distbelief.nn.arena import Layout
from distbelief.nn.interval import Interval
from distbelief.nn.layers import BFLOAT16

BLOCK = 1 << 16  # elements drawn at once
PER_COUNT = 4  # numbers that Philox makes of one value of its counter


def fill(values: np.ndarray, seed: int, name: str, spread: float, start: int = 0) -> None:
    """Fill `values` [size] with elements start..start+size-1 of tensor `name`, uniform in -spread..spread. Local.

    Each tensor has a random stream of its own, by name. Drawn in float64, so that float32 and float64 networks begin
    alike, and from raw output, the part of NumPy's generators that never changes; for bfloat16 they are rounded.
    """
    if spread == 0:
        values[...] = 0
        return
    stream = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),))
    generator = np.random.Philox(stream)
    start = int(start)  # NumPy wants no numbers of its own
    generator.advance(start // PER_COUNT)
    generator.random_raw(start % PER_COUNT)
    for first in range(0, values.size, BLOCK):
        part = values[first : first + BLOCK]
        drawn = ((generator.random_raw(part.size) >> np.uint64(11)) * 2.0**-52 - 1) * spread
        if values.dtype == BFLOAT16:
            narrow(drawn, part)
        else:
            part[...] = drawn


def fill_interval(values: np.ndarray, seed: int, layout: Layout, spreads: Mapping[str, float], start: int = 0) -> None:
    """Fill `values` [size] with elements start..start+size-1 of the flat vector. `spreads`: of each tensor. Local."""
    wanted = Interval(start, start + values.size)
    for tensor in layout.tensors:
        here = wanted.common(Interval(tensor.start, tensor.stop))
        if here.size:
            fill(values[here.seen_from(start)], seed, tensor.name, spreads[tensor.name], here.start - tensor.start)
