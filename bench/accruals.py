"""Dense layers whose gradients are taken in at once, and layers with passes after them: cases for kernels.py.

What a replica of Downpour makes of a gradient g if it does not push it: accrued += g, w -= rate g, and a look at each
number, whether it is finite. Linear layers, so that gradients by outputs are left as they are, call after call.
"""

from collections.abc import Iterator

import numpy as np
from agreement import must_agree
from dense16 import products, rounded, widened
from timing import Case

from distbelief.kernels import (
    ACTIVATIONS,
    accrue,
    dense_accrue,
    dense_backward,
    dense_bfloat16_accrue,
    dense_bfloat16_backward,
    dense_bfloat16_scratch,
)
from distbelief.nn.arena import Arena, Layout

LINEAR = ACTIVATIONS["linear"]
RATE = 1e-6
TOLERANCE = 1e-4  # of the largest: sums in another order


def cases(quick: bool) -> Iterator[Case]:
    """Hidden layers of the Fashion-MNIST example and of the speech network (Dean et al. 2012, section 5), its last."""
    sizes = [(256, 784, 32), (2560, 2560, 32), (2560, 2560, 128), (8192, 2560, 128)]
    ours16 = products() != "widened"  # before scratch is planned
    for outputs, inputs, n in [(70, 48, 16)] if quick else sizes:
        layer = Layer(outputs, inputs, n)
        yield layer.case("dense_accrue", layer.at_once, layer.backward)
        if ours16:
            yield layer.case("dense_bfloat16_accrue", layer.at_once16, layer.backward16)


class Layer:
    """Its numbers, where arenas have them, and the calls of its kernels."""

    def __init__(self, outputs: int, inputs: int, n: int):
        random = np.random.default_rng(0)
        self.size, self.gflop = f"{outputs} x {inputs}, batch {n}", 4e-9 * outputs * inputs * n
        layout = Layout({"w": (outputs, inputs), "b": (outputs,)})
        self.parameters, self.accrued, self.gradient = (Arena(layout) for _ in range(3))
        self.w16 = rounded(random.standard_normal((outputs, inputs), np.float32))
        self.parameters["w"] = widened(self.w16)
        self.x16, self.dy16 = (rounded(random.standard_normal((side, n), np.float32)) for side in (inputs, outputs))
        self.x, self.dy = widened(self.x16), widened(self.dy16)
        self.dx, self.dx16 = np.empty_like(self.x), np.empty_like(self.x16)
        self.scratch = np.empty(dense_bfloat16_scratch(outputs, inputs, n), np.float32)

    def case(self, kernel: str, at_once, backward) -> Case:
        """`backward` writes the gradient; passes take it in afterwards, ours or NumPy's."""

        def apart() -> None:
            backward()
            accrue(self.parameters.flat, self.accrued.flat, self.gradient.flat, RATE)

        def numpy_apart() -> None:
            np.matmul(self.dy, self.x.T, out=self.gradient["w"])
            np.sum(self.dy, axis=1, out=self.gradient["b"])
            np.matmul(self.parameters["w"].T, self.dy, out=self.dx)
            np.add(self.accrued.flat, self.gradient.flat, out=self.accrued.flat)
            np.subtract(self.parameters.flat, np.float32(RATE) * self.gradient.flat, out=self.parameters.flat)

        results = []
        for call in (at_once, apart, numpy_apart):
            self.accrued.flat[:] = 0
            call()
            results.append([self.accrued.flat.copy()])
        for name, result in zip(("apart", "NumPy"), results[1:], strict=True):
            must_agree(f"{kernel}, {self.size}, {name}", results[0], result, TOLERANCE)
        # w and sums are read and written; x, dy and dx are little beside them.
        gigabytes = 4e-9 * self.parameters.flat.nbytes
        return Case(kernel, self.size, "GFLOP/s", self.gflop, gigabytes, at_once, numpy_apart, apart=apart)

    def backward(self) -> None:
        made = self.gradient["w"], self.gradient["b"], self.dx
        dense_backward(self.parameters["w"], self.x, self.dy, LINEAR, self.dy, *made)

    def at_once(self) -> None:
        made = self.accrued["w"], self.accrued["b"], self.dx, 1.0, RATE, False
        dense_accrue(self.parameters["w"], self.parameters["b"], self.x, self.dy, LINEAR, self.dy, *made)

    def backward16(self) -> None:
        made = self.gradient["w"], self.gradient["b"], self.dx16, self.scratch
        dense_bfloat16_backward(self.w16, self.x16, self.dy16, LINEAR, self.dy16, *made)

    def at_once16(self) -> None:
        made = self.accrued["w"], self.accrued["b"], self.dx16, self.scratch, 1.0, RATE, False
        masters = self.parameters["w"], self.parameters["b"]
        dense_bfloat16_accrue(self.w16, self.x16, self.dy16, LINEAR, self.dy16, *made, *masters)
