"""Products of bfloat16 by AMX, its instructions emulated in C (emulated_amx.c), against NumPy in float64."""

import ctypes
import shlex
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from distbelief.nn.arena import aligned

FORWARD, TO_WEIGHTS, TO_INPUTS = range(3)
HEADERS = Path(__file__).resolve().parents[2] / "pyx"
# Rows, inner size, batch: around squares of 32, parts, panels, and batches of which the operands fill a cache.
SHAPES = [
    (1, 1, 1),
    (33, 31, 1),
    (32, 32, 32),
    (17, 65, 33),
    (300, 130, 7),
    (70, 350, 40),
    (64, 8200, 16),
    (40, 96, 256),
    (260, 2600, 255),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if "avx512dq" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX-512, with which squares are packed")
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    target = tmp_path_factory.mktemp("amx") / "emulated_amx.so"
    source = Path(__file__).with_name("emulated_amx.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", f"-I{HEADERS}", source, "-o", target], check=True)
    return ctypes.CDLL(target)


def numbers(*shape):
    """In bfloat16, and the same in float64."""
    bits = (np.random.default_rng(shape).standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(float)


def packed(rows, n):
    """Room for a small operand, between numbers that are to stay."""
    size = -(-rows // 32) * -(-n // 32) * 1024
    whole = aligned(size + 32, np.uint16)
    whole[size:] = 7
    return whole, whole[:size]


def arguments(*given):
    return [
        ctypes.c_void_p(each.ctypes.data) if isinstance(each, np.ndarray) else ctypes.c_ssize_t(each) for each in given
    ]


def assert_close(out, true, depth):
    """Sums of `depth` products in float32, in another order."""
    np.testing.assert_allclose(out, true, rtol=1e-5, atol=2e-6 * depth)


@pytest.mark.parametrize("product", [FORWARD, TO_INPUTS])
@pytest.mark.parametrize(("rows", "inner", "n"), SHAPES)
@pytest.mark.parametrize("beside", [0, 5])
def test_products_with_the_weights(library, product, rows, inner, n, beside):
    """`beside`: numbers at the end of each row of the weights that are not theirs."""
    shape = (rows, inner) if product == FORWARD else (inner, rows)
    whole, _ = numbers(shape[0], shape[1] + beside)
    w, b = whole[:, : shape[1]], numbers(inner, n)
    wide = (w.astype(np.uint32) << 16).view(np.float32).astype(float)
    out, (room, small) = np.full((rows + 1, n), 7, np.float32), packed(inner, n)
    given = arguments(w, shape[1] + beside, b[0], rows, n, inner, small, out)
    assert library.multiply(product, *given), "tiles are configured before they are used, and released"
    assert_close(out[:rows], (wide if product == FORWARD else wide.T) @ b[1], inner)
    assert (out[rows:] == 7).all() and (room[small.size :] == 7).all()


@pytest.mark.parametrize(("rows", "columns", "n"), [*SHAPES, (40, 64, 1100), (33, 45, 2050)])
@pytest.mark.parametrize("shift", [0, 1])
def test_the_gradient_by_the_weights(library, rows, columns, n, shift):
    """`shift`: of the result from the beginning of a line, which decides how it is written."""
    (a, wide_a), (b, wide_b) = numbers(rows, n), numbers(columns, n)
    whole, (room, small) = aligned(rows * columns + 2, np.float32), packed(columns, n)
    whole[:] = 7
    out = whole[shift : shift + rows * columns].reshape(rows, columns)
    assert library.multiply_to_weights(*arguments(a, n, b, rows, columns, n, small, out, 0, 0))
    assert_close(out, wide_a @ wide_b.T, n)
    assert (whole[:shift] == 7).all() and (whole[shift + rows * columns :] == 7).all()
    assert (room[small.size :] == 7).all()


@pytest.mark.parametrize(("rows", "columns", "n"), [*SHAPES, (40, 64, 1100), (33, 45, 2050)])
def test_the_gradient_by_the_weights_is_taken_in(library, rows, columns, n):
    (a, wide_a), (b, wide_b), (room, small) = numbers(rows, n), numbers(columns, n), packed(columns, n)
    accrued, weights = np.random.default_rng(n).standard_normal((2, rows, columns), np.float32)
    out, stepped = accrued.copy(), weights.copy()
    assert library.multiply_to_weights(*arguments(a, n, b, rows, columns, n, small, out, stepped, 0))
    gradient = wide_a @ wide_b.T
    assert_close(out, accrued + 3 * gradient, 3 * n)
    assert_close(stepped, weights - gradient / 4, n)
    assert (room[small.size :] == 7).all()

    if n > 1024:  # summed in parts
        return
    held, before = numbers(rows, columns)
    assert library.multiply_to_weights(*arguments(a, n, b, rows, columns, n, small, out, 0, held))
    wide = (held.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(wide, before - gradient / 4, rtol=2.0**-8, atol=2e-6 * n)
