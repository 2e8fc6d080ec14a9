"""The fully connected layer, computed in bfloat16."""

import numpy as np

from distbelief.kernels import (
    dense_bfloat16_backward,
    dense_bfloat16_forward,
    dense_bfloat16_scratch,
    narrow,
)
from distbelief.nn.layers.dense import Dense

BFLOAT16 = np.dtype(np.uint16)
"""Its bits: NumPy has no such type."""


class DenseBfloat16(Dense):
    """A dense layer whose products are of bfloat16 numbers, summed in float32.

    Parameters come in float32, rounded here once in a step, and gradients by them go out in float32. Inputs and outputs
    and the gradients by them are float32 or bfloat16 (uint16), as their arrays are.
    """

    keeps_scratch = True

    def __init__(self, dense: Dense):
        """All that `dense` is, the place that it was cut to included."""
        vars(self).update(vars(dense))

    def forward(self, parameters, x, y_on, scratch) -> None:
        n = x.shape[-1]
        w_oi, x_in, _, rest = self._divide(scratch, n)
        narrow(parameters[self.w].reshape(-1), w_oi.reshape(-1))
        if x.dtype == BFLOAT16:
            x_in = x.reshape(self.inputs, n)
        else:
            narrow(x.reshape(-1), x_in.reshape(-1))
        dense_bfloat16_forward(w_oi, parameters[self.b], x_in, self._activation, y_on, rest)

    def backward(self, parameters, x, y_on, dy_on, gradient, dx, scratch) -> None:
        n = x.shape[-1]
        w_oi, x_in, dz_on, rest = self._divide(scratch, n)
        if x.dtype == BFLOAT16:
            x_in = x.reshape(self.inputs, n)
        if dy_on.dtype == BFLOAT16:
            dz_on = dy_on
        dx_in = dx.reshape(self.inputs if dx.shape[0] else 0, n)
        dw_oi, db_o = gradient[self.w], gradient[self.b]
        dense_bfloat16_backward(w_oi, x_in, y_on, self._activation, dy_on, dz_on, dw_oi, db_o, dx_in, rest)

    @property
    def copy_bytes(self) -> int:
        """Of the weights in bfloat16, a part of the scratch."""
        return 2 * self._sizes(0)[0]

    def scratch(self, n: int) -> int:
        return sum(self._sizes(n)) // 2 + dense_bfloat16_scratch(self.outputs, self.inputs, n)

    def _divide(self, scratch: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Weights, inputs and the gradient by w x + b in bfloat16, and what is left for the kernels."""
        bits, start, parts = scratch.view(BFLOAT16), 0, []
        for size, shape in zip(self._sizes(n), self._halves(n), strict=True):
            parts.append(bits[start : start + shape[0] * shape[1]].reshape(shape))
            start += size
        return *parts, scratch[start // 2 :]

    def _halves(self, n: int) -> list[tuple[int, int]]:
        return [(self.outputs, self.inputs), (self.inputs, n), (self.outputs, n)]

    def _sizes(self, n: int) -> list[int]:
        """Of the three arrays of bfloat16 in scratch: whole lines of the cache, 32 numbers."""
        return [-(-rows * columns // 32) * 32 for rows, columns in self._halves(n)]
