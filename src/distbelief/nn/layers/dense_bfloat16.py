"""The fully connected layer, computed in bfloat16."""

import numpy as np

from distbelief.kernels import (
    dense_bfloat16_accrue,
    dense_bfloat16_accrues,
    dense_bfloat16_backward,
    dense_bfloat16_forward,
    dense_bfloat16_scratch,
    narrow,
    widen,
)
from distbelief.nn.accrual import Accrual
from distbelief.nn.layers.dense import Dense

BFLOAT16 = np.dtype(np.uint16)
"""Its bits: NumPy has no such type."""


class DenseBfloat16(Dense):
    """A dense layer whose products are of bfloat16 numbers, summed in float32.

    Its weights are bfloat16 (uint16), its biases that or float32; gradients by them are float32. Inputs and outputs and
    the gradients by them are float32 or bfloat16, as their arrays are.
    """

    def __init__(self, dense: Dense):
        """All that `dense` is, the place that it was cut to included."""
        vars(self).update(vars(dense))

    def forward(self, parameters, x, y_on, scratch) -> None:
        x_in, rest = self._rounded(x, scratch)
        b_o, rest = widened(parameters[self.b], rest)
        dense_bfloat16_forward(parameters[self.w], b_o, x_in, self._activation, y_on, rest)

    def backward(self, parameters, x, y_on, dy_on, gradient, dx, scratch) -> None:
        x_in, rest = self._rounded(x, scratch)
        dx_in = dx.reshape(self.inputs if dx.shape[0] else 0, x.shape[-1])
        dw_oi, db_o = gradient[self.w], gradient[self.b]
        dense_bfloat16_backward(parameters[self.w], x_in, y_on, self._activation, dy_on, dw_oi, db_o, dx_in, rest)

    def accrues(self, n: int) -> bool:
        return dense_bfloat16_accrues(self.outputs, self.inputs, n)

    def accrue(self, given, parameters, x, y_on, dy_on, accrual: Accrual, dx, scratch) -> None:
        x_in, rest = self._rounded(x, scratch)
        dx_in = dx.reshape(self.inputs if dx.shape[0] else 0, x.shape[-1])
        into = accrual.accrued[self.w], accrual.accrued[self.b], dx_in, rest
        step = accrual.weight, accrual.rate, accrual.fresh
        stepped = (parameters[self.w], parameters[self.b]) if accrual.rate else (None, None)
        held = parameters[self.w].dtype == BFLOAT16
        both = (None, None, *stepped) if held else stepped
        dense_bfloat16_accrue(given[self.w], x_in, y_on, self._activation, dy_on, *into, *step, *both)

    def scratch(self, n: int) -> int:
        return lines(self.inputs * n) // 2 + lines(self.outputs) + dense_bfloat16_scratch(self.outputs, self.inputs, n)

    def _rounded(self, x: np.ndarray, scratch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs in bfloat16, [inputs, n], and the scratch that is left."""
        n = x.shape[-1]
        if x.dtype == BFLOAT16:
            return x.reshape(self.inputs, n), scratch
        x_in = scratch.view(BFLOAT16)[: x.size]
        narrow(x.reshape(-1), x_in)
        return x_in.reshape(self.inputs, n), scratch[lines(x.size) // 2 :]


def widened(values: np.ndarray, scratch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`values` in float32, in scratch if they are bfloat16; and the scratch that is left."""
    if values.dtype != BFLOAT16:
        return values, scratch
    wide = scratch[: values.size]
    widen(values.reshape(-1), wide)
    return wide.reshape(values.shape), scratch[lines(values.size) :]


def lines(size: int) -> int:
    """At least `size` elements of scratch: whole lines of the cache, whether of 2 or 4 bytes."""
    return -(-size // 32) * 32
