"""The locally connected layer."""

import math

from distbelief.kernels import local_backward, local_forward, local_scratch
from distbelief.nn.layers.bounds import bounded
from distbelief.nn.layers.filters import Filters
from distbelief.nn.layers.layer import Shape


class LocallyConnected(Filters):
    """y = activation(w x + b) with filters of its own at every position (Dean et al. 2012, section 5).

    y[i, j, m] = activation(sum_uvc w[i, j, m, u, v, c] x[i stride + u, j stride + v, c] + b[i, j, m]).
    """

    tied = False

    @property
    def shapes(self) -> dict[str, Shape]:
        return {self.w: (*self.shape, *self.filter), self.b: self.shape}

    def forward(self, parameters, x, y, scratch) -> None:
        local_forward(parameters[self.w], parameters[self.b], x, self.window.stride, self._activation, y)

    def backward(self, parameters, x, y, dy, gradient, dx, scratch) -> None:
        w, dw, db = parameters[self.w], gradient[self.w], gradient[self.b]
        local_backward(w, x, y, self.window.stride, self._activation, dy, dw, db, dx, scratch)

    def bounded(self, x, y, dy) -> bool:
        numbers = math.prod(self.shape) * math.prod(self.filter)
        return bounded(x.shape[-1], x, y if self.needs_output else None, dy, numbers)

    def scratch(self, n: int) -> int:
        return local_scratch(*self.below, n, self.window.kh)
