"""The losses and their gradients by the outputs, in one call as a step has them: cases for kernels.py.

Counted is what must be moved, once each: outputs, gradient, and where they are real numbers the targets.
"""

from collections.abc import Iterator

import numpy as np
from agreement import must_agree
from timing import Call, Case

from distbelief.kernels import logistic_loss, softmax_cross_entropy, squared_error

# Classes and batches of the paper's speech and image networks (Dean et al. 2012, section 5).
SIZES = [(8192, 128), (21_841, 32)]
SMALL = [(50, 8)]

TOLERANCE = 1e-5


class Arrays:
    """Outputs, and what they are to be; each loss returns its sum, and its gradient is in `dz`."""

    def __init__(self, classes: int, n: int):
        random = np.random.default_rng(0)
        self.z, self.targets = random.standard_normal((2, classes, n), np.float32)
        self.labels = random.integers(0, classes, n)
        self.dz, self.scratch = np.empty_like(self.z), np.empty((2, n))

    def softmax(self) -> float:
        return softmax_cross_entropy(self.z, self.labels, 1.0, self.dz, self.scratch)

    def logistic(self) -> float:
        return logistic_loss(self.z, self.labels, 1.0, self.scratch, self.dz)

    def squared(self) -> float:
        return squared_error(self.z, self.targets, 1.0, self.dz)

    def numpy_softmax(self) -> float:
        dz, of_labels = self.dz, (self.labels, np.arange(self.labels.size))
        np.subtract(self.z, self.z.max(0), out=dz)
        loss = -dz[of_labels].sum(dtype=float)
        np.exp(dz, out=dz)
        sums = dz.sum(0)
        dz /= sums
        dz[of_labels] -= 1
        return loss + np.log(sums).sum(dtype=float)

    def numpy_logistic(self) -> float:
        """From exp(-|z|), which does not overflow, as if no class were the label's; then these."""
        z, dz, of_labels = self.z, self.dz, (self.labels, np.arange(self.labels.size))
        e = np.exp(-np.abs(z))
        loss = np.maximum(z, 0).sum(dtype=float) + np.log1p(e).sum(dtype=float) - z[of_labels].sum(dtype=float)
        np.divide(np.where(z > 0, np.float32(1), e), 1 + e, out=dz)
        dz[of_labels] -= 1
        return loss

    def numpy_squared(self) -> float:
        np.subtract(self.z, self.targets, out=self.dz)
        return np.square(self.dz).sum(dtype=float) / 2


def cases(quick: bool) -> Iterator[Case]:
    for classes, n in SMALL if quick else SIZES:
        arrays = Arrays(classes, n)
        size = f"{classes} classes, batch {n}"
        for name, vectors in [("softmax", 2), ("logistic", 2), ("squared", 3)]:
            ours, numpy = getattr(arrays, name), getattr(arrays, f"numpy_{name}")
            must_agree(f"{name}, {size}, NumPy", _results(arrays, ours), _results(arrays, numpy), TOLERANCE)
            yield Case(
                f"{name}_loss",
                size,
                "GB/s",
                0,
                1e-9 * vectors * arrays.z.nbytes,
                ours,
                numpy,
                torch=lambda name=name, size=size, arrays=arrays: _in_torch(arrays, name, size),
            )


def _results(arrays: Arrays, call: Call) -> tuple[float, np.ndarray]:
    return call(), arrays.dz.copy()


def _in_torch(arrays: Arrays, name: str, size: str) -> Call:
    """Forward and backward on one thread, the batch first as PyTorch has it."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    z = torch.tensor(arrays.z.T.copy(), requires_grad=True)
    labels, targets = torch.tensor(arrays.labels), torch.tensor(arrays.targets.T.copy())
    hot = functional.one_hot(labels, len(arrays.z)).float()

    def loss() -> torch.Tensor:
        if name == "softmax":
            return functional.cross_entropy(z, labels, reduction="sum")
        if name == "logistic":
            return functional.binary_cross_entropy_with_logits(z, hot, reduction="sum")
        return functional.mse_loss(z, targets, reduction="sum") / 2

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        value = loss()
        return value, torch.autograd.grad(value, z)[0]

    value, dz = step()
    ours = _results(arrays, getattr(arrays, name))
    must_agree(f"{name}, {size}, PyTorch", ours, (value.item(), dz.T.numpy()), TOLERANCE)
    return step
