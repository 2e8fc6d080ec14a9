"""What a locally connected layer and a convolution must both do, as a class of tests; and the truth about them."""

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import expit

from distbelief.kernels import ACTIVATIONS

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
ACTIVATE = {"linear": lambda z: z, "sigmoid": expit, "tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}
DERIVE = {
    "linear": np.ones_like,
    "sigmoid": lambda z: expit(z) * expit(-z),
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "relu": lambda z: (z > 0).astype(z.dtype),
}


class Size(NamedTuple):
    height: int
    width: int
    channels: int
    n: int
    maps: int
    kh: int
    kw: int
    stride: int

    @property
    def positions(self) -> tuple[int, int]:
        return (self.height - self.kh) // self.stride + 1, (self.width - self.kw) // self.stride + 1

    @property
    def operations(self) -> int:
        """Of one pass over all positions."""
        return 2 * math.prod(self.positions) * self.maps * self.kh * self.kw * self.channels * self.n

    def windows(self):
        """Each position, and where in x its window is."""
        for i, j in np.ndindex(self.positions):
            top, left = i * self.stride, j * self.stride
            yield (i, j), np.s_[top : top + self.kh, left : left + self.kw]


# Operations that are worth several threads (threads.pxd).
ENOUGH = 1e6
# Ones and primes, windows as large as the image, strides that do not divide and that pass over rows; batches, maps
# and rows of windows below, at and beyond the widths of vectors and of tiles.
SIZES = [
    Size(1, 1, 1, 1, 1, 1, 1, 1),
    Size(5, 7, 1, 1, 1, 3, 2, 1),
    Size(7, 5, 3, 2, 5, 2, 3, 2),
    Size(6, 6, 8, 8, 8, 3, 3, 1),
    Size(9, 8, 3, 20, 7, 3, 5, 2),
    Size(7, 7, 2, 33, 13, 7, 7, 1),
    Size(8, 9, 5, 5, 3, 2, 2, 4),
    Size(4, 5, 8, 32, 16, 3, 4, 1),
    Size(5, 4, 1, 67, 36, 2, 3, 3),
    # Enough work for several threads: rows that are no multiple of their number, and filters of fewer rows than that.
    Size(17, 13, 8, 33, 13, 5, 7, 2),
    Size(23, 9, 2, 64, 43, 2, 2, 3),
]
SOME = SIZES[4]

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "-".join(map(str, size)))
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
activations = pytest.mark.parametrize("activation", list(ACTIVATIONS))
ARRAYS = ["w", "b", "x", "y", "dy", "dw", "db", "dx"]


class Layer(SimpleNamespace):
    """A layer in the middle of training: its arrays in one type, and in `true` what NumPy makes of them in float64.

    What a kernel may only read is read-only, what it must overwrite is full of NaN.
    """

    def forward(self):
        y = np.full_like(self.y, np.nan)
        self.kernels.forward(self.w, self.b, self.x, self.stride, ACTIVATIONS[self.activation], y)
        return y

    def backward(self):
        outputs = (self.dy, self.dw, self.db, self.dx, self.scratch)
        self.kernels.backward(self.w, self.x, self.y, self.stride, ACTIVATIONS[self.activation], *outputs)


class Kernels(NamedTuple):
    forward: Callable
    backward: Callable
    scratch: Callable
    tied: bool
    """Whether all positions share w and b."""

    def layer(self, size: Size, activation: str, dtype: type = np.float64) -> Layer:
        random = np.random.default_rng(size)

        def given(*shape, spread=1.0):
            return (spread * random.standard_normal(shape)).astype(dtype)

        height, width, channels, n, maps, kh, kw, stride = size
        each = () if self.tied else size.positions
        w = given(*each, maps, kh, kw, channels, spread=(kh * kw * channels) ** -0.5)
        b, x, dy = given(*each, maps), given(height, width, channels, n), given(*size.positions, maps, n)
        true = truth(size, *(array.astype(np.float64) for array in (w, b, x, dy)), activation)
        y = true.y.astype(dtype)
        for array in (w, b, x, y):
            array.flags.writeable = False
        dw, db, dx = (np.full(array.shape, np.nan, dtype) for array in (w, b, x))
        scratch = np.full(self.scratch(height, width, channels, n, kh), np.nan, dtype)
        arrays = {"w": w, "b": b, "x": x, "y": y, "dy": dy, "dw": dw, "db": db, "dx": dx, "scratch": scratch}
        return Layer(**arrays, kernels=self, stride=stride, activation=activation, true=true)


def truth(size: Size, w, b, x, dy, activation):
    """y and all gradients, position by position. Tied weights are the same at each; their gradients are summed."""
    tied = w.ndim == 4
    each_w, each_b = (np.broadcast_to(a, size.positions + a.shape[-k:]) for a, k in ((w, 4), (b, 1)))
    z = np.empty(dy.shape)
    for place, window in size.windows():
        z[place] = np.einsum("mhwc,hwcn->mn", each_w[place], x[window]) + each_b[place][:, None]
    dz = dy * DERIVE[activation](z)
    dw, db, dx = np.empty(each_w.shape), dz.sum(axis=-1), np.zeros(x.shape)
    for place, window in size.windows():
        dw[place] = np.einsum("mn,hwcn->mhwc", dz[place], x[window])
        dx[window] += np.einsum("mn,mhwc->hwcn", dz[place], each_w[place])
    if tied:
        dw, db = dw.sum(axis=(0, 1)), db.sum(axis=(0, 1))
    return SimpleNamespace(y=ACTIVATE[activation](z), dy=dz, dw=dw, db=db, dx=dx)


def assert_close(actual, true):
    tolerance = TOLERANCE[actual.dtype.type] * max(1, np.abs(true).max(initial=0))
    np.testing.assert_allclose(actual, true, rtol=0, atol=tolerance)


def assert_true(layer, *names):
    for name in names:
        assert_close(getattr(layer, name), getattr(layer.true, name))


class FilterLayerTests:
    kernels: Kernels

    @sizes
    @dtypes
    @activations
    def test_forward_is_numpys(self, size, activation, dtype):
        layer = self.kernels.layer(size, activation, dtype)
        assert_close(layer.forward(), layer.true.y)

    @sizes
    @dtypes
    @activations
    def test_backward_is_numpys(self, size, activation, dtype):
        layer = self.kernels.layer(size, activation, dtype)
        layer.backward()
        assert_true(layer, "dy", "dw", "db", "dx")

    @pytest.mark.parametrize("n", [*range(1, 18), 31, 47, 64])
    @pytest.mark.parametrize("maps", [1, 6, 13])
    def test_no_batch_is_odd(self, n, maps):
        """Every way in which a batch falls into vectors, and some of those in which maps and windows do."""
        layer = self.kernels.layer(Size(3, 4, 1 + n % 3, n, maps, 2, 3, 1), "linear", np.float32)
        assert_close(layer.forward(), layer.true.y)
        layer.backward()
        assert_true(layer, "dw", "dx")

    @pytest.mark.parametrize("size", [Size(4, 5, 2, 3, 3, 2, 3, 1), Size(7, 6, 1, 2, 2, 3, 2, 2)])
    @activations
    def test_backward_is_the_derivative_of_forward(self, size, activation):
        """Central differences of sum(c * y) by every weight, bias and input: truncation about 1e-10, rounding 1e-11."""
        layer = self.kernels.layer(size, activation)
        layer.y = layer.forward()
        c = layer.dy.copy()
        layer.backward()
        step = 1e-5
        for name, gradient in [("w", layer.dw), ("b", layer.db), ("x", layer.dx)]:
            value = getattr(layer, name).copy()
            setattr(layer, name, value)
            differences = np.empty_like(value)
            for place in np.ndindex(value.shape):
                middle, ends = value[place], []
                for sign in (1, -1):
                    value[place] = middle + sign * step
                    ends.append((c * layer.forward()).sum())
                value[place] = middle
                differences[place] = (ends[0] - ends[1]) / (2 * step)
            assert np.linalg.norm(gradient - differences) < 1e-6 * np.linalg.norm(differences), name

    @dtypes
    def test_what_no_window_reaches_is_not_read_and_has_no_gradient(self, dtype):
        """Rows and columns between windows of 2 x 2 every 3, and beyond the last."""
        size = Size(7, 9, 2, 4, 3, 2, 2, 3)
        layer = self.kernels.layer(size, "tanh", dtype)
        reached = np.zeros(layer.x.shape, bool)
        for _, window in size.windows():
            reached[window] = True
        assert not reached[2].any() and not reached[:, 8].any() and reached.any()
        layer.x = np.where(reached, layer.x, np.nan)
        assert_close(layer.forward(), layer.true.y)
        layer.backward()
        assert_true(layer, "dw", "db", "dx")
        assert not layer.dx[~reached].any()

    @dtypes
    @pytest.mark.parametrize("shape", [(0, 0, 0, 0), (0, *SOME[1:4])])
    def test_without_rows_for_dx_the_other_gradients_come_all_the_same(self, dtype, shape):
        layer = self.kernels.layer(SOME, "tanh", dtype)
        layer.dx = np.empty(shape, dtype)
        layer.backward()
        assert_true(layer, "dw", "db", "dy")

    @dtypes
    def test_a_batch_of_nothing_has_a_gradient_of_zero(self, dtype):
        layer = self.kernels.layer(SOME._replace(n=0), "linear", dtype)
        assert layer.forward().size == 0
        layer.backward()
        assert not layer.dw.any() and not layer.db.any()

    @dtypes
    @activations
    def test_nan_passes_through_every_activation(self, activation, dtype):
        layer = self.kernels.layer(Size(4, 1, 1, 5, 2, 2, 1, 2), activation, dtype)
        layer.x = layer.x.copy()
        layer.x[3, 0, 0, 4] = np.nan
        y = layer.forward()
        assert np.isnan(y[1, 0, :, 4]).all() and np.isnan(y).sum() == 2

    def test_scratch_may_begin_anywhere_and_nothing_beside_it_is_written(self):
        for offset in range(16):
            layer = self.kernels.layer(SIZES[7], "linear", np.float32)
            size = layer.scratch.size
            room = np.full(size + 16, np.nan, np.float32)
            layer.scratch = room[offset : offset + size]
            layer.backward()
            assert_true(layer, "dw")
            assert np.isnan(room[:offset]).all() and np.isnan(room[offset + size :]).all()

    @pytest.mark.parametrize("name", ARRAYS)
    @pytest.mark.parametrize("change", [-1, 1])
    def test_wrong_shapes_are_refused(self, name, change):
        """Each array in turn, one too long or too short along each of its axes. Stride 1: every length counts."""
        size = Size(5, 6, 3, 4, 2, 2, 3, 1)
        shape = getattr(self.kernels.layer(size, "linear"), name).shape
        for axis in range(len(shape)):
            wrong = self.kernels.layer(size, "linear")
            setattr(wrong, name, np.zeros([length + change * (k == axis) for k, length in enumerate(shape)]))
            if name in ("w", "b", "x", "y"):
                with pytest.raises(AssertionError):
                    wrong.forward()
            if name != "b":
                with pytest.raises(AssertionError):
                    wrong.backward()

    def test_scratch_that_is_too_small_is_refused(self):
        layer = self.kernels.layer(SOME, "linear")
        layer.scratch = np.zeros(SOME.n * SOME.width * SOME.channels - 1)
        with pytest.raises(AssertionError):
            layer.backward()

    @pytest.mark.parametrize("name", ["w", "b", "x", "y"])
    def test_mixed_float_types_are_refused_forwards(self, name):
        wrong = self.kernels.layer(SOME, "linear", np.float32)
        setattr(wrong, name, getattr(wrong, name).astype(np.float64))
        with pytest.raises((TypeError, ValueError)):
            wrong.forward()

    @pytest.mark.parametrize("name", ["w", "x", "y", "dy", "dw", "db", "dx", "scratch"])
    def test_mixed_float_types_are_refused_backwards(self, name):
        wrong = self.kernels.layer(SOME, "linear", np.float32)
        setattr(wrong, name, getattr(wrong, name).astype(np.float64))
        with pytest.raises((TypeError, ValueError)):
            wrong.backward()

    @pytest.mark.parametrize("stride", [0, -1])
    def test_a_stride_that_leads_nowhere_is_refused(self, stride):
        layer = self.kernels.layer(SOME, "linear")
        layer.stride = stride
        with pytest.raises(AssertionError):
            layer.forward()

    def test_the_number_of_threads_changes_no_bit(self):
        assert all(size.operations > ENOUGH for size in SIZES[-2:])
        assert len({digest_in_process(type(self).__module__, threads) for threads in (1, 2, 3)}) == 1

    @activations
    def test_pytorch_has_the_same_gradients(self, activation):
        torch = pytest.importorskip("torch")
        layer = self.kernels.layer(SOME, activation)
        w, b, x = (torch.tensor(np.array(array), requires_grad=True) for array in (layer.w, layer.b, layer.x))
        patches = x.unfold(0, SOME.kh, SOME.stride).unfold(1, SOME.kw, SOME.stride)  # [oh, ow, C, N, kh, kw]
        each = "" if self.kernels.tied else "ij"
        z = torch.einsum(f"{each}mhwc,ijcnhw->ijmn", w, patches) + b[..., None]
        y = {"linear": torch.clone, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[activation](z)
        y.backward(torch.tensor(layer.dy))
        assert_close(layer.forward(), y.detach().numpy())
        layer.backward()
        for ours, theirs in [(layer.dw, w.grad), (layer.db, b.grad), (layer.dx, x.grad)]:
            assert_close(ours, theirs.numpy())


def digest(kernels: Kernels) -> str:
    """Of all bits that the kernels give."""
    hashed = hashlib.sha256()
    for size in SIZES:
        for dtype in (np.float32, np.float64):
            layer = kernels.layer(size, "sigmoid", dtype)
            hashed.update(layer.forward())
            layer.backward()
            for array in (layer.dy, layer.dw, layer.db, layer.dx):
                hashed.update(array)
    return hashed.hexdigest()


def digest_in_process(module: str, threads: int) -> str:
    """The digest of `module.KERNELS` with that many threads."""
    script = f"import filter_layers, {module}; print(filter_layers.digest({module}.KERNELS))"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_DYNAMIC": "false"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout
