"""The parameters that training begins with, or any interval of them."""

import numpy as np

from distbelief.algorithms.model import Model
from distbelief.nn.arena import Arena


def begin(model: Model, seed: int, values: np.ndarray, start: int) -> None:
    """Fill `values` [size] with elements start..start+size-1 of the beginning that `seed` names. Local.

    A model that has `initialise_interval` draws no others.
    """
    if hasattr(model, "initialise_interval"):
        model.initialise_interval(values, seed, start)
    else:
        beginning = Arena(model.layout, model.dtype)
        model.initialise(beginning, seed)
        values[:] = beginning.flat[start : start + values.size]
