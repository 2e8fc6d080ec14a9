"""The convolutional layer."""

from distbelief.kernels import convolution_backward, convolution_forward, convolution_scratch
from distbelief.nn.layers.filters import Filters
from distbelief.nn.layers.layer import Shape


class Convolution(Filters):
    """y = activation(w * x + b) with the same filters at every position, w [maps, kh, kw, C] and b [maps].

    y[i, j, m] = activation(sum_uvc w[m, u, v, c] x[i stride + u, j stride + v, c] + b[m]). Its cuts share
    all of w and b, and the sum of their gradients is the gradient.
    """

    tied = True

    @property
    def shapes(self) -> dict[str, Shape]:
        maps = self.shape[2]
        return {self.w: (maps, *self.filter), self.b: (maps,)}

    def forward(self, parameters, x, y, scratch) -> None:
        convolution_forward(parameters[self.w], parameters[self.b], x, self.window.stride, self._activation, y)

    def backward(self, parameters, x, y, dy, gradient, dx, scratch) -> None:
        w, dw, db = parameters[self.w], gradient[self.w], gradient[self.b]
        convolution_backward(w, x, y, self.window.stride, self._activation, dy, dw, db, dx, scratch)

    def bounded(self, x, y, dy) -> bool:
        return False  # there are fewer gradients than activations to look at

    def scratch(self, n: int) -> int:
        return convolution_scratch(*self.below, n, self.window.kh)
