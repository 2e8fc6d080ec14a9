"""What every layer is: shapes, tensors, forward and backward, and how it is cut over ranks."""

from collections.abc import Mapping
from typing import Protocol, Self, runtime_checkable

import numpy as np

from distbelief.nn.accrual import Accrual
from distbelief.nn.arena import Arena

Shape = tuple[int, ...]
"""Of one example: (features,), or (H, W, C) for an image."""


class Layer(Protocol):
    """One step of a chain. It owns no arrays: parameters, activations and scratch are given to it. All is Local.

    Arrays are C-contiguous and of one float type, the batch last: x [*below, n], y [*shape, n].
    """

    name: str
    below: Shape
    """Of one example's input."""
    shape: Shape
    """Of one example's output."""
    weights: tuple[str, ...]
    """Those of the tensors that an L2 penalty falls on: not the biases."""
    tied: bool
    """Whether cuts share all of the tensors, and their gradients add up, instead of having slices of them."""
    needs_output: bool
    """Whether backward reads y; if not, dy may lie in its place."""
    keeps_scratch: bool
    """Whether backward needs what forward left in scratch; the scratch of other layers is shared among them."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """The layer's tensors by logical name."""
        ...

    def spread(self, name: str) -> float:
        """The tensor `name` begins uniform in -spread..spread."""
        ...

    def forward(self, parameters: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray, scratch: np.ndarray) -> None:
        """Overwrites `y` and `scratch`, which has at least scratch(n) elements."""
        ...

    def backward(
        self,
        parameters: Mapping[str, np.ndarray],
        x: np.ndarray,
        y: np.ndarray,
        dy: np.ndarray,
        gradient: Mapping[str, np.ndarray],
        dx: np.ndarray,
        scratch: np.ndarray,
    ) -> None:
        """Overwrites `gradient`'s tensors of this layer and `dx`, and may spoil `dy` and `scratch`.

        Comes after `forward` on the same x, y and scratch. A `dx` of no rows, [0, ..., n], is left alone:
        the first layer needs none.
        """
        ...

    def bounded(self, x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> bool:
        """Whether the gradients by its tensors that `backward` will compute of these are finite for certain."""
        ...

    def scratch(self, n: int) -> int:
        """Elements of working memory for `n` examples."""
        ...

    def flops(self, n: int) -> float:
        """Floating-point operations of one forward pass over `n` examples; backward takes about twice as many."""
        ...

    def region(self, start: int, stop: int) -> tuple[int, int]:
        """The interval of the leading axis of `below` that the rows start..stop-1 of the output need."""
        ...

    def cut(self, start: int, stop: int) -> Self:
        """A layer that computes just the rows start..stop-1 of the output, from just their region of the input.

        Its tensors are this one's under the same names: slices of their leading axes, or if tied the whole.
        The outputs of cuts side by side are this layer's; so is the sum of their `dx`, each added at its region.
        """
        ...


@runtime_checkable
class Accruing(Protocol):
    """A layer that can take in its gradients while it computes them."""

    def accrues(self, n: int) -> bool:
        """Whether for `n` examples that is worth more than `backward`, and `accrual.take_in` of what it writes."""
        ...

    def accrue(
        self,
        given: Mapping[str, np.ndarray],
        parameters: Arena,
        x: np.ndarray,
        y: np.ndarray,
        dy: np.ndarray,
        accrual: Accrual,
        dx: np.ndarray,
        scratch: np.ndarray,
    ) -> None:
        """Both in one: as `backward`, by the parameters `given` as they are, and `parameters` take the step.

        The two are the same, or the first are those rounded.
        """
        ...
