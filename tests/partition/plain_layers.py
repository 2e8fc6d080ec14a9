"""Layers in a few lines of NumPy: whatever has a layer's face can be cut."""

import copy

import numpy as np


class Taps:
    """y[r] = sum over k of w[..., k] x[r + k], over the rows of an image [H, W, C, n].

    Untied: w [rows, taps]; tied: w [taps], the same for all rows.
    """

    def __init__(self, name, below, taps, tied):
        self.name, self.below, self.taps, self.tied = name, tuple(below), taps, tied
        self.shape = (below[0] - taps + 1, *below[1:])
        self.w = f"{name}.w"
        self.weights = (self.w,)
        self.keeps_scratch = False

    @property
    def shapes(self):
        return {self.w: (self.taps,) if self.tied else (self.shape[0], self.taps)}

    def spread(self, name):
        return 1.0

    def scratch(self, n):
        return 0

    def flops(self, n):
        return 2.0 * self.taps * np.prod(self.shape) * n

    def region(self, start, stop):
        return start, stop + self.taps - 1

    def cut(self, start, stop):
        part = copy.copy(self)
        part.below, part.shape = (stop - start + self.taps - 1, *self.below[1:]), (stop - start, *self.shape[1:])
        return part

    def _rows(self, w):
        return np.broadcast_to(w, (self.shape[0], self.taps))

    def forward(self, parameters, x, y, scratch):
        w, rows = self._rows(parameters[self.w]), self.shape[0]
        assert x.shape[:-1] == self.below and y.shape[:-1] == self.shape
        y[...] = sum(w[:, k, None, None, None] * x[k : k + rows] for k in range(self.taps))

    def backward(self, parameters, x, y, dy, gradient, dx, scratch):
        w, rows = self._rows(parameters[self.w]), self.shape[0]
        dw = np.stack([(dy * x[k : k + rows]).sum(axis=(1, 2, 3)) for k in range(self.taps)], axis=1)
        gradient[self.w][...] = dw.sum(axis=0) if self.tied else dw
        if dx.shape[0]:
            dx[...] = 0
            for k in range(self.taps):
                dx[k : k + rows] += w[:, k, None, None, None] * dy
        dy[...] = np.nan  # a layer may spoil it


def chain(below, *makers):
    """Layers above each other: each maker takes a name and the shape below."""
    layers = []
    for i, make in enumerate(makers):
        layers.append(make(f"layer{i}", below))
        below = layers[-1].shape
    return layers
