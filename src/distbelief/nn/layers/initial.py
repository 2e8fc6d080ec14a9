"""How weights begin: with a spread that keeps the variance of what flows."""

import math


def spread(activation: str, fan_in: int, fan_out: int) -> float:
    """Weights begin uniform in -spread..spread; biases begin at zero.

    relu: sqrt(6 / fan_in) (He et al. 2015); others: sqrt(6 / (fan_in + fan_out)), four times that for sigmoid
    (Glorot and Bengio 2010).
    """
    if activation == "relu":
        return math.sqrt(6 / fan_in)
    return math.sqrt(6 / (fan_in + fan_out)) * (4 if activation == "sigmoid" else 1)
