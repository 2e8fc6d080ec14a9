"""The locally connected layer with parameters in bfloat16."""

from distbelief.kernels import (
    local_backward_to_weights,
    local_bfloat16_backward_to_inputs,
    local_bfloat16_forward,
    local_bfloat16_scratch,
)
from distbelief.nn.layers.dense_bfloat16 import lines, widened
from distbelief.nn.layers.local import LocallyConnected


class LocallyConnectedBfloat16(LocallyConnected):
    """A locally connected layer whose weights are bfloat16 (uint16), its biases that or float32; all else is float32.

    What it computes is what LocallyConnected does with these numbers in float32, bit by bit; but of the weights only a
    few filters at a time are ever float32, so that they take half the memory.
    """

    def __init__(self, local: LocallyConnected):
        """All that `local` is, the place that it was cut to included."""
        vars(self).update(vars(local))

    def forward(self, parameters, x, y, scratch) -> None:
        b, rest = widened(parameters[self.b], scratch)
        local_bfloat16_forward(parameters[self.w], b, x, self.window.stride, self._activation, y, rest)

    def backward(self, parameters, x, y, dy, gradient, dx, scratch) -> None:
        stride, dw, db = self.window.stride, gradient[self.w], gradient[self.b]
        local_backward_to_weights(x, y, stride, self._activation, dy, dw, db, scratch)
        if dx.shape[0]:
            local_bfloat16_backward_to_inputs(parameters[self.w], dy, stride, dx, scratch)

    def scratch(self, n: int) -> int:
        oh, ow, maps = self.shape
        return max(super().scratch(n), lines(oh * ow * maps) + local_bfloat16_scratch(maps, *self.filter))
