"""The fully connected layer."""

import copy
import math
from typing import Self

from distbelief.kernels import ACTIVATIONS, dense_accrue, dense_accrues, dense_backward, dense_forward
from distbelief.nn.accrual import Accrual
from distbelief.nn.layers.bounds import bounded
from distbelief.nn.layers.checks import named, one_or_more
from distbelief.nn.layers.initial import spread
from distbelief.nn.layers.layer import Shape


class Dense:
    """y = activation(w x + b), with w [outputs, inputs], b [outputs], x [inputs, n], y [outputs, n].

    Over an image [H, W, C, n] it sees it flattened, inputs = H W C in this order: a reshape, no copy.
    """

    tied = False
    keeps_scratch = False

    def __init__(self, name: str, below: int | Shape, outputs: int, activation: str = "linear"):
        """`below`: the number of inputs, or the shape of an image. Raises UserError for no outputs or activation."""
        self.name = name
        self.below: Shape = (below,) if isinstance(below, int) else tuple(below)
        self.inputs = math.prod(self.below)
        self.shape: Shape = (one_or_more("outputs", outputs),)
        self.activation = activation
        self.needs_output = activation != "linear"
        self.w, self.b = f"{name}.w", f"{name}.b"
        self.weights = (self.w,)
        self._activation = named("activation", activation, ACTIVATIONS)
        self._spread = spread(activation, self.inputs, outputs)

    @property
    def outputs(self) -> int:
        return self.shape[0]

    @property
    def shapes(self) -> dict[str, Shape]:
        return {self.w: (self.outputs, self.inputs), self.b: (self.outputs,)}

    def spread(self, name: str) -> float:
        return self._spread if name == self.w else 0.0

    def forward(self, parameters, x, y_on, scratch) -> None:
        x_in = x.reshape(self.inputs, x.shape[-1])
        dense_forward(parameters[self.w], parameters[self.b], x_in, self._activation, y_on)

    def backward(self, parameters, x, y_on, dy_on, gradient, dx, scratch) -> None:
        x_in, dx_in = self._flat(x, dx)
        dense_backward(
            parameters[self.w], x_in, y_on, self._activation, dy_on, gradient[self.w], gradient[self.b], dx_in
        )

    def accrues(self, n: int) -> bool:
        return dense_accrues(self.outputs, self.inputs, n)

    def accrue(self, given, parameters, x, y_on, dy_on, accrual: Accrual, dx, scratch) -> None:
        x_in, dx_in = self._flat(x, dx)
        w, b, into = parameters[self.w], parameters[self.b], accrual.accrued
        step = accrual.weight, accrual.rate, accrual.fresh
        dense_accrue(w, b, x_in, y_on, self._activation, dy_on, into[self.w], into[self.b], dx_in, *step)

    def bounded(self, x, y_on, dy_on) -> bool:
        y_on = y_on if self.needs_output else None
        return bounded(x.shape[-1], x, y_on, dy_on, self.inputs * self.outputs)

    def scratch(self, n: int) -> int:
        return 0

    def flops(self, n: int) -> float:
        return 2.0 * self.inputs * self.outputs * n

    def region(self, start: int, stop: int) -> tuple[int, int]:
        return 0, self.below[0]

    def cut(self, start: int, stop: int) -> Self:
        part = copy.copy(self)  # the spread stays that of the whole
        part.shape = (stop - start,)
        return part

    def _flat(self, x, dx):
        n = x.shape[-1]
        return x.reshape(self.inputs, n), dx.reshape(self.inputs if dx.shape[0] else 0, n)
