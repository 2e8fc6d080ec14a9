"""Layers: what each computes forwards and backwards, and how it begins."""

import math

import numpy as np

from distbelief.kernels import ACTIVATIONS, dense_backward, dense_forward


class Dense:
    """y = activation(w x + b), with w [outputs, inputs], b [outputs], x [inputs, n], y [outputs, n]."""

    def __init__(self, name: str, inputs: int, outputs: int, activation: str = "linear"):
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self.activation = activation
        self._activation = ACTIVATIONS[activation]
        self.w, self.b = f"{name}.w", f"{name}.b"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The layer's tensors by logical name."""
        return {self.w: (self.outputs, self.inputs), self.b: (self.outputs,)}

    def spread(self, name: str) -> float:
        """The tensor `name` begins uniform in -spread..spread: weights that keep the variance of what flows.

        relu: sqrt(6 / inputs) (He et al. 2015); others: sqrt(6 / (inputs + outputs)), four times that for
        sigmoid (Glorot and Bengio 2010). Biases begin at zero.
        """
        if name == self.b:
            return 0.0
        if self.activation == "relu":
            return math.sqrt(6 / self.inputs)
        return math.sqrt(6 / (self.inputs + self.outputs)) * (4 if self.activation == "sigmoid" else 1)

    def forward(self, parameters, x_in: np.ndarray, y_on: np.ndarray) -> None:
        dense_forward(parameters[self.w], parameters[self.b], x_in, self._activation, y_on)

    def backward(self, parameters, x_in, y_on, dy_on, gradient, dx_in) -> None:
        """Overwrites `gradient`'s tensors of this layer, `dx_in` (unless it has no rows) and `dy_on`."""
        dense_backward(
            parameters[self.w], x_in, y_on, self._activation, dy_on, gradient[self.w], gradient[self.b], dx_in
        )

    def flops(self, examples: int) -> float:
        """Floating-point operations of one forward pass; backward takes about twice as many."""
        return 2.0 * self.inputs * self.outputs * examples
