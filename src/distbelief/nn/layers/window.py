"""The geometry of layers that look at an image through a window: no padding, leftover rows and columns are not read."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from distbelief.errors import UserError
from distbelief.nn.layers.checks import one_or_more
from distbelief.nn.layers.layer import Shape


class Window(NamedTuple):
    """kh x kw pixels, moved by `stride` pixels."""

    kh: int
    kw: int
    stride: int

    @classmethod
    def of(cls, size: int | Sequence[int], stride: int) -> Self:
        """`size`: of a square, or (kh, kw). Raises UserError for another number of sizes, and for one below 1."""
        sizes = (size, size) if isinstance(size, int) else tuple(size)
        if len(sizes) != 2:
            raise UserError(f"window: {list(sizes)}, expected a number or [height, width]")
        kh, kw = (one_or_more("window", each) for each in sizes)
        return cls(kh, kw, one_or_more("stride", stride))

    def places(self, below: Shape) -> tuple[int, int]:
        """(oh, ow): how often it fits into an image [H, W, C]. Raises UserError if it does not."""
        height, width, _ = image(below)
        if self.kh > height or self.kw > width:
            raise UserError(f"a window of {[self.kh, self.kw]} does not fit into the {list(below)} below")
        # Where a window sees all there is, there is nothing that a stride could leave out.
        if any(seen < size < self.stride for seen, size in ((self.kh, height), (self.kw, width))):
            raise UserError(
                f"a stride of {self.stride} leaves nothing of the {list(below)} below "
                f"beside a window of {[self.kh, self.kw]}"
            )
        return (height - self.kh) // self.stride + 1, (width - self.kw) // self.stride + 1

    def region(self, start: int, stop: int) -> tuple[int, int]:
        """The rows of the image that the rows start..stop-1 of the windows look at."""
        assert start < stop
        return start * self.stride, (stop - 1) * self.stride + self.kh


def image(below: Shape) -> tuple[int, int, int]:
    """(H, W, C) of an image; raises UserError if `below` is none."""
    if len(below) != 3:
        raise UserError(f"takes an image [H, W, C], found {list(below)} below")
    return below
