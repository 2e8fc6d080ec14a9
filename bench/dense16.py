"""Dense layers in bfloat16: cases for kernels.py. NumPy, which has no such type, makes the same products in float32.

`to_weights` is the backward pass of a first layer, which needs no gradient by its inputs; `backward` makes both.
Linear layers, so that a gradient in bfloat16 is left as it is, call after call.
"""

from collections.abc import Iterator

import numpy as np
from agreement import must_agree
from timing import Call, Case

from distbelief.kernels import (
    ACTIVATIONS,
    dense_bfloat16_backward,
    dense_bfloat16_forward,
    dense_bfloat16_scratch,
    narrow,
    use_kernels16,
    widen,
)
from distbelief.nn.arena import aligned
from distbelief.processor.prepare import OURS

LINEAR = ACTIVATIONS["linear"]
TOLERANCE = 2.0**-7  # of the largest: results are rounded to 8 bits


class Arrays:
    """One layer's numbers in bfloat16, the same numbers in float32, and the calls of its kernels."""

    def __init__(self, outputs: int, inputs: int, n: int):
        random = np.random.default_rng(0)

        def numbers(*shape: int) -> tuple[np.ndarray, np.ndarray]:
            bits = rounded(random.standard_normal(shape, np.float32))
            return bits, widened(bits)

        self.w, self.wide_w = numbers(outputs, inputs)
        self.x, self.wide_x = numbers(inputs, n)
        self.dy, self.wide_dy = numbers(outputs, n)
        _, self.b = numbers(outputs)
        self.y, self.dx, self.nothing = np.empty_like(self.dy), np.empty_like(self.x), np.empty((0, n), np.uint16)
        self.dw, self.db = aligned(outputs * inputs, np.float32).reshape(outputs, inputs), np.empty_like(self.b)
        self.wide_y, self.wide_dx = np.empty_like(self.wide_dy), np.empty_like(self.wide_x)
        self.scratch = np.empty(dense_bfloat16_scratch(outputs, inputs, n), np.float32)

    def forward(self) -> None:
        dense_bfloat16_forward(self.w, self.b, self.x, LINEAR, self.y, self.scratch)

    def to_weights(self) -> None:
        self._backward(self.nothing)

    def backward(self) -> None:
        self._backward(self.dx)

    def _backward(self, dx: np.ndarray) -> None:
        made = (self.dy, self.dw, self.db, dx, self.scratch)
        dense_bfloat16_backward(self.w, self.x, self.y, LINEAR, *made)

    def numpy_forward(self) -> None:
        np.matmul(self.wide_w, self.wide_x, out=self.wide_y)
        np.add(self.wide_y, self.b[:, None], out=self.wide_y)

    def numpy_to_weights(self) -> None:
        np.matmul(self.wide_dy, self.wide_x.T, out=self.dw)
        np.sum(self.wide_dy, axis=1, out=self.db)

    def numpy_backward(self) -> None:
        self.numpy_to_weights()
        np.matmul(self.wide_w.T, self.wide_dy, out=self.wide_dx)


def rounded(values: np.ndarray) -> np.ndarray:
    bits = np.empty(values.shape, np.uint16)
    narrow(values.reshape(-1), bits.reshape(-1))
    return bits


def widened(bits: np.ndarray) -> np.ndarray:
    values = np.empty(bits.shape, np.float32)
    widen(bits.reshape(-1), values.reshape(-1))
    return values


def products() -> str:
    """How products of bfloat16 are made from now on: by our own kernels, where the processor has what they need."""
    return use_kernels16(*OURS) or "widened"


def cases(quick: bool) -> Iterator[Case]:
    """A hidden layer of the speech network (Dean et al. 2012, section 5)."""
    products()  # before scratch is planned
    for outputs, inputs, n in [(70, 45, 16)] if quick else [(2560, 2560, 128), (2560, 2560, 512)]:
        arrays = Arrays(outputs, inputs, n)
        size, gflop = f"{outputs} x {inputs}, batch {n}", 2e-9 * outputs * inputs * n
        made = (arrays.dw, arrays.db)
        for name, passes, moved in [
            ("forward", 1, (arrays.w, arrays.b, arrays.x, arrays.y)),
            ("to_weights", 1, (arrays.x, arrays.dy, *made)),
            ("backward", 2, (arrays.w, arrays.x, arrays.dy, *made, arrays.dx)),
        ]:
            ours, numpy, kernel = getattr(arrays, name), getattr(arrays, f"numpy_{name}"), f"dense_bfloat16_{name}"
            ours()
            results = _results(arrays, name)
            numpy()
            must_agree(f"{kernel}, {size}, NumPy", results, _numpy_results(arrays, name), TOLERANCE)
            yield Case(
                kernel,
                size,
                "GFLOP/s",
                passes * gflop,
                1e-9 * sum(array.nbytes for array in moved),
                ours,
                numpy,
                torch=lambda name=name, size=size, arrays=arrays: _in_torch(arrays, name, size),
            )


def _results(arrays: Arrays, name: str) -> list[np.ndarray]:
    """What our last call has made."""
    if name == "forward":
        return [widened(arrays.y)]
    return [arrays.dw.copy(), arrays.db.copy()] + ([widened(arrays.dx)] if name == "backward" else [])


def _numpy_results(arrays: Arrays, name: str) -> list[np.ndarray]:
    if name == "forward":
        return [arrays.wide_y]
    return [arrays.dw, arrays.db] + ([arrays.wide_dx] if name == "backward" else [])


def _in_torch(arrays: Arrays, name: str, size: str) -> Call:
    """The same products of bfloat16 on one thread, the batch first as PyTorch has it."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)

    def tensor(bits: np.ndarray) -> torch.Tensor:
        return torch.tensor(bits).view(torch.bfloat16)

    w, b = tensor(arrays.w), torch.tensor(arrays.b).to(torch.bfloat16)
    x, dy = tensor(arrays.x.T.copy()), tensor(arrays.dy.T.copy())

    def forward() -> list[torch.Tensor]:
        return [functional.linear(x, w, b).T]

    def to_weights() -> list[torch.Tensor]:
        return [dy.T @ x, dy.sum(0)]

    def backward() -> list[torch.Tensor]:
        return [*to_weights(), (dy @ w).T]

    call = {"forward": forward, "to_weights": to_weights, "backward": backward}[name]
    getattr(arrays, name)()
    theirs = [result.float().numpy() for result in call()]
    must_agree(f"dense_bfloat16_{name}, {size}, PyTorch", _results(arrays, name), theirs, TOLERANCE)
    return call
