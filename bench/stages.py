"""Pooling and local contrast normalisation: cases for kernels.py.

Pooling spoils the gradient that it is given: a copy of that, made anew each time, is in our time alone. Counted is what
must be moved, once each: forwards x and y, backwards x, y and the gradients by them; of averages the gradients alone.
"""

from collections.abc import Callable, Iterator

import numpy as np
from agreement import must_agree
from timing import Call, Case

from distbelief.kernels import POOLINGS
from distbelief.nn import Normalise, Pool
from distbelief.nn.layers.normalisation import gaussian

TOLERANCE = 1e-5


class Arrays:
    """One layer in the middle of training, and the calls of its kernels."""

    def __init__(self, layer: Pool | Normalise, n: int):
        random = np.random.default_rng(0)
        self.layer = layer
        self.x = random.standard_normal((*layer.below, n), np.float32)
        self.given = random.standard_normal((*layer.shape, n), np.float32)
        self.y, self.dy, self.dx = np.empty_like(self.given), self.given.copy(), np.empty_like(self.x)
        self.scratch = np.empty(layer.scratch(n), np.float32)
        self.forward()

    def forward(self) -> None:
        self.layer.forward({}, self.x, self.y, self.scratch)

    def backward(self) -> None:
        if isinstance(self.layer, Pool):
            np.copyto(self.dy, self.given)
        self.layer.backward({}, self.x, self.y, self.dy, {}, self.dx, self.scratch)


class NumpyPool:
    """All windows at once, pixel by pixel of the window."""

    def __init__(self, arrays: Arrays):
        self._arrays = arrays
        self._function = arrays.layer.function
        self.y, self.dx = np.empty_like(arrays.y), np.empty_like(arrays.x)

    def forward(self) -> None:
        pixels = [self._arrays.x[place] for place in self._places()]
        if self._function == "max":
            np.copyto(self.y, pixels[0])
            for pixel in pixels[1:]:
                np.maximum(self.y, pixel, out=self.y)
            return
        self.y[...] = 0
        for pixel in pixels:
            self.y += pixel * pixel if self._function == "l2" else pixel
        if self._function == "l2":
            np.sqrt(self.y, out=self.y)
        else:
            self.y /= len(pixels)

    def backward(self) -> None:
        x, y, dy = self._arrays.x, self._arrays.y, self._arrays.given
        places = list(self._places())
        self.dx[...] = 0
        if self._function == "max":  # no two of random numbers are equal
            for place in places:
                self.dx[place] += dy * (x[place] == y)
            return
        share = dy / (y if self._function == "l2" else len(places))
        for place in places:
            self.dx[place] += share
        if self._function == "l2":
            self.dx *= x

    def _places(self) -> Iterator[tuple[slice, slice]]:
        kh, kw, stride = self._arrays.layer.window
        rows, columns = ((size - 1) * stride + 1 for size in self._arrays.layer.shape[:2])
        for u, v in np.ndindex(kh, kw):
            yield np.s_[u : u + rows : stride, v : v + columns : stride]


class NumpyNormalise:
    """The window's weights as matrices: products with them are the weighted means."""

    def __init__(self, arrays: Arrays):
        layer = arrays.layer
        self._arrays = arrays
        self._rows, self._columns = (
            self._matrix(window, size) for window, size in zip(layer.window[:2], layer.below[:2], strict=True)
        )
        self.y, self.dx = np.empty_like(arrays.y), np.empty_like(arrays.x)

    def forward(self) -> None:
        floor = np.float32(self._arrays.layer.floor)
        self._v = self._arrays.x - self._mean(self._arrays.x)
        self._s = np.sqrt(self._mean(self._v * self._v))
        self._divisor = np.maximum(floor, self._s)
        np.divide(self._v, self._divisor, out=self.y)

    def backward(self) -> None:
        """As normalisation.pyx has it, from what forward has left."""
        dy, maps, s, d = self._arrays.given, self._arrays.layer.below[2], self._s, self._divisor
        e = np.where(s > d.dtype.type(self._arrays.layer.floor), -(dy * self.y).sum(2, keepdims=True) / (2 * d * d), 0)
        dv = dy / d
        dv += (2 / maps) * self._v * self._back(e)
        np.subtract(dv, self._back(dv.sum(2, keepdims=True)) / maps, out=self.dx)

    def _mean(self, x: np.ndarray) -> np.ndarray:
        return self._blur(x.mean(2), self._rows, self._columns)

    def _back(self, e: np.ndarray) -> np.ndarray:
        return self._blur(e[:, :, 0], self._rows.T, self._columns.T)

    @staticmethod
    def _blur(plane: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Of [H, W, n], [H, W, 1, n]."""
        height, width, n = plane.shape
        down = (rows @ plane.reshape(height, width * n)).reshape(height, width, n)
        return np.matmul(columns, down)[:, :, None]

    @staticmethod
    def _matrix(window: int, size: int) -> np.ndarray:
        """[size, size]: the weights of all places, in the row of each."""
        matrix = np.zeros((size, size + window - 1), np.float32)
        for i, weights in enumerate(gaussian(window, size)):
            matrix[i, i : i + window] = weights
        return np.ascontiguousarray(matrix[:, window // 2 : window // 2 + size])


def pooling(quick: bool) -> Iterator[Case]:
    """The image network's windows (bench/networks.py)."""
    below, n = ((9, 9, 4), 8) if quick else ((32, 32, 16), 32)
    for function in POOLINGS:
        layer = Pool("pool", below, 5, 2, function)
        yield from _cases(f"{function}_pool", f"{_words(below, n)}, {_window(layer)}", Arrays(layer, n), NumpyPool)


def normalisation(quick: bool) -> Iterator[Case]:
    below, n = ((9, 9, 4), 8) if quick else ((32, 32, 16), 32)
    layer = Normalise("normalise", below, 5)
    yield from _cases("normalise", f"{_words(below, n)}, {_window(layer)}", Arrays(layer, n), NumpyNormalise)


def _words(below: tuple[int, ...], n: int) -> str:
    return f"{below[0]}^2x{below[2]}, {n}"


def _window(layer: Pool | Normalise) -> str:
    return f"{layer.window.kh}^2" + (f" / {layer.window.stride}" if layer.window.stride > 1 else "")


def _cases(kernel: str, size: str, arrays: Arrays, rival: Callable) -> Iterator[Case]:
    numpy = rival(arrays)
    forward, backward = arrays.x.nbytes + arrays.y.nbytes, arrays.x.nbytes + arrays.y.nbytes
    if kernel != "average_pool":
        backward *= 2
    for name, moved, result in [("forward", forward, "y"), ("backward", backward, "dx")]:
        ours, theirs = getattr(arrays, name), getattr(numpy, name)
        ours(), theirs()
        words = f"{kernel}_{name}, {size}"
        must_agree(f"{words}, NumPy", [getattr(arrays, result)], [getattr(numpy, result)], TOLERANCE)
        yield Case(
            f"{kernel}_{name}",
            size,
            "GB/s",
            0,
            1e-9 * moved,
            ours,
            theirs,
            torch=lambda name=name, words=words: _in_torch(arrays, name, words),
        )


def _in_torch(arrays: Arrays, name: str, words: str) -> Call:
    """The layer's forward or backward pass alone, on one thread, the batch first as PyTorch has it."""
    import torch
    import torch_networks
    from torch.nn import functional

    torch.set_num_threads(1)
    layer = arrays.layer
    if isinstance(layer, Normalise):
        function = torch_networks.normalisation(layer)
    elif layer.function == "l2":
        function = torch_networks.l2_pooling(layer)
    else:
        pool = functional.max_pool2d if layer.function == "max" else functional.avg_pool2d
        kh, kw, stride = layer.window

        def function(x: torch.Tensor) -> torch.Tensor:
            return pool(x, (kh, kw), stride)

    x, dy = (torch.tensor(np.ascontiguousarray(a.transpose(3, 2, 0, 1))) for a in (arrays.x, arrays.given))
    y = function(x.requires_grad_())

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return function(x)

    def backward() -> torch.Tensor:
        return torch.autograd.grad(y, x, dy, retain_graph=True)[0]

    ours, call = (arrays.y, forward) if name == "forward" else (arrays.dx, backward)
    getattr(arrays, name)()
    must_agree(f"{words}, PyTorch", [ours], [call().permute(2, 3, 1, 0).numpy()], TOLERANCE)
    return call
