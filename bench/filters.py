"""Locally connected layers and convolutions: cases for kernels.py, and their race with PyTorch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from agreement import must_agree
from timing import Call, Case, medians

from distbelief import kernels

RELU = kernels.ACTIVATIONS["relu"]
TOLERANCE = 1e-4  # of sums of thousands


class Layer(NamedTuple):
    """Square images, square filters; relus."""

    image: int
    channels: int
    maps: int
    filter: int
    stride: int
    n: int

    @property
    def positions(self) -> int:
        return (self.image - self.filter) // self.stride + 1

    @property
    def gflop(self) -> float:
        """Of forward; backward does twice as much."""
        return 2e-9 * self.positions**2 * self.maps * self.filter**2 * self.channels * self.n

    def __str__(self) -> str:
        stride = f" / {self.stride}" if self.stride > 1 else ""
        return f"{self.image}^2x{self.channels}, {self.maps} of {self.filter}^2{stride}, {self.n}"


THE_ISSUES = Layer(32, 8, 16, 10, 1, 32)
"""A stage of the image network (Dean et al. 2012, section 5) on a small image: what rivals are compared on."""
LAYERS = [THE_ISSUES, *(THE_ISSUES._replace(**change) for change in ({"stride": 2}, {"channels": 3}, {"maps": 36}))]
LAYERS += [THE_ISSUES._replace(n=n) for n in (8, 128)]
SMALL = Layer(9, 3, 4, 3, 1, 8)


class Arrays:
    """One layer's numbers, and the calls of its kernels."""

    def __init__(self, layer: Layer, tied: bool):
        random = np.random.default_rng(0)

        def numbers(*shape: int) -> np.ndarray:
            return random.standard_normal(shape, np.float32)

        o, k, self.stride = layer.positions, layer.filter, layer.stride
        each = () if tied else (o, o)
        self.w, self.b = numbers(*each, layer.maps, k, k, layer.channels), numbers(*each, layer.maps)
        self.x = numbers(layer.image, layer.image, layer.channels, layer.n)
        self.y, self.dy = numbers(o, o, layer.maps, layer.n), numbers(o, o, layer.maps, layer.n)
        self.dw, self.db, self.dx = (np.empty_like(array) for array in (self.w, self.b, self.x))
        self.kind = "convolution" if tied else "local"
        size = getattr(kernels, f"{self.kind}_scratch")(layer.image, layer.image, layer.channels, layer.n, k)
        self.scratch = np.empty(size, np.float32)
        self._forward = getattr(kernels, f"{self.kind}_forward")
        self._backward = getattr(kernels, f"{self.kind}_backward")

    def forward(self) -> None:
        self._forward(self.w, self.b, self.x, self.stride, RELU, self.y)

    def backward(self) -> None:
        # relu' twice is relu' once, so that dy may be overwritten again and again.
        outputs = (self.dy, self.dw, self.db, self.dx, self.scratch)
        self._backward(self.w, self.x, self.y, self.stride, RELU, *outputs)

    def step(self) -> None:
        self.forward()
        self.backward()

    def windows(self) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
        kh, kw = self.w.shape[-3:-1]
        for i, j in np.ndindex(self.y.shape[:2]):
            top, left = i * self.stride, j * self.stride
            yield (i, j), np.s_[top : top + kh, left : left + kw]

    def numpy_forward(self) -> None:
        """A product for each position."""
        n, inputs = self.x.shape[-1], self.w[..., 0, :, :, :].size // self.w[..., 0, 0, 0, 0].size
        w = np.broadcast_to(self.w.reshape(*self.w.shape[:-3], inputs), (*self.y.shape[:3], inputs))
        for place, window in self.windows():
            np.matmul(w[place], self.x[window].reshape(inputs, n), out=self.y[place])
        np.add(self.y, self.b[..., None], out=self.y)
        np.maximum(self.y, 0, out=self.y)

    def numpy_backward(self) -> None:
        n, shape = self.x.shape[-1], self.w.shape[-3:]
        inputs = int(np.prod(shape))
        tied = self.kind == "convolution"
        w = np.broadcast_to(self.w.reshape(*self.w.shape[:-3], inputs), (*self.y.shape[:3], inputs))
        dw = self.dw.reshape(*self.dw.shape[:-3], inputs)
        np.multiply(self.dy, self.y > 0, out=self.dy)
        np.sum(self.dy, axis=(0, 1, 3) if tied else 3, out=self.db)
        self.dw[...] = 0
        self.dx[...] = 0
        for place, window in self.windows():
            patch = self.x[window].reshape(inputs, n)
            if tied:
                dw += self.dy[place] @ patch.T
            else:
                np.matmul(self.dy[place], patch.T, out=dw[place])
            self.dx[window] += (w[place].T @ self.dy[place]).reshape(*shape, n)


def cases(tied: bool, quick: bool) -> Iterator[Case]:
    for layer in [SMALL] if quick else LAYERS:
        arrays = Arrays(layer, tied)
        given, made = (arrays.w, arrays.b, arrays.x), (arrays.dw, arrays.db, arrays.dx)
        forward = sum(array.nbytes for array in (*given, arrays.y))
        backward = sum(array.nbytes for array in (*given, *made, arrays.y, arrays.dy, arrays.dy))
        arrays.forward()
        for name, passes, moved, ours, numpy in [
            ("forward", 1, forward, arrays.forward, arrays.numpy_forward),
            ("backward", 2, backward, arrays.backward, arrays.numpy_backward),
        ]:
            kernel, gflop = f"{arrays.kind}_{name}", passes * layer.gflop
            yield Case(kernel, str(layer), "GFLOP/s", gflop, 1e-9 * moved, ours, numpy)


def against_torch(tied: bool, quick: bool, repetitions: int, least: float) -> dict:
    """Forward and backward, all gradients, of the same layer in PyTorch on one thread, turn by turn."""
    layer = SMALL if quick else THE_ISSUES
    ours = Arrays(layer, tied)
    seconds = medians({"ours": ours.step, "reference": torch_step(ours)}, repetitions, least)
    return {
        "size": str(layer),
        "ours_ms": 1e3 * seconds["ours"],
        "reference_ms": 1e3 * seconds["reference"],
        "ratio": seconds["reference"] / seconds["ours"],
        "gflops": 3 * layer.gflop / seconds["ours"],
    }


def torch_step(arrays: Arrays) -> Call:
    """Batch first, as PyTorch has it: unfold and einsum; conv2d where the weights are tied. Its gradients are ours."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    stride, k, tied = arrays.stride, arrays.w.shape[-2], arrays.kind == "convolution"
    positions, maps = arrays.y.shape[0] * arrays.y.shape[1], arrays.y.shape[2]

    def as_theirs(w: np.ndarray, b: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
        x = x.transpose(3, 2, 0, 1)  # [N, C, H, W]
        if tied:
            return [w.transpose(0, 3, 1, 2), b, x]
        return [w.transpose(0, 1, 2, 5, 3, 4).reshape(positions, maps, -1), b.reshape(positions, maps).T, x]

    leaves = as_theirs(arrays.w, arrays.b, arrays.x)
    w, b, x = (torch.tensor(np.ascontiguousarray(array), requires_grad=True) for array in leaves)
    dy = torch.tensor(arrays.dy.transpose(3, 2, 0, 1).copy())  # [N, maps, oh, ow]

    def convolved() -> torch.Tensor:
        return functional.conv2d(x, w, b, stride)

    def local() -> torch.Tensor:
        patches = functional.unfold(x, k, stride=stride)  # [N, C kh kw, positions]
        return torch.einsum("lmk,nkl->nml", w, patches) + b

    forward = convolved if tied else local
    if not tied:
        dy = dy.reshape(-1, maps, positions)

    def step() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(torch.relu(forward()), (w, b, x), dy)

    arrays.step()
    ours = as_theirs(arrays.dw, arrays.db, arrays.dx)
    must_agree(f"{arrays.kind}, PyTorch", ours, [gradient.numpy() for gradient in step()], TOLERANCE)
    return step
