"""Products on their own against NumPy, shared by threads or not."""

import ctypes

import numpy as np
import pytest
from scipy.linalg import cython_blas

from distbelief.kernels import product, use_sgemm, use_threads

SIZES = [(1, 1, 1), (17, 5, 3), (64, 32, 48), (131, 257, 67), (70, 300, 1100), (9, 8, 1030)]


@pytest.fixture(params=[True, False], ids=["knows AVX-512", "does not"])
def knowing(request):
    """What is multiplied in blocks of ours depends on what the BLAS knows, too."""
    use_sgemm(0, request.param)
    yield
    use_sgemm()


@pytest.fixture(params=[1, 3])
def threads(request):
    use_threads(request.param)
    yield
    use_threads(1)


@pytest.mark.parametrize(("rows", "columns", "inner"), SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_product_is_numpys(threads, knowing, rows, columns, inner, dtype, transpose_a, transpose_b):
    random = np.random.default_rng([rows, columns, inner])
    a, b = random.standard_normal((rows, inner)), random.standard_normal((inner, columns))
    out = np.full((rows, columns), np.nan, dtype)
    given = [np.ascontiguousarray(m.T if t else m, dtype) for m, t in ((a, transpose_a), (b, transpose_b))]
    product(transpose_a, transpose_b, *given, out)
    tolerance = {np.float32: 1e-5, np.float64: 1e-13}[dtype]
    np.testing.assert_allclose(out, a @ b, rtol=0, atol=tolerance * max(1, np.abs(a @ b).max()))


@pytest.fixture(params=["scipys", "another"])
def blas(request):
    """What is multiplied in blocks of ours depends on whose the BLAS is; another is here the same one."""
    if request.param == "another":
        capsule = cython_blas.__pyx_capi__["sgemm"]
        python = ctypes.pythonapi
        python.PyCapsule_GetName.restype, python.PyCapsule_GetPointer.restype = ctypes.c_char_p, ctypes.c_void_p
        name = python.PyCapsule_GetName(ctypes.py_object(capsule))
        use_sgemm(python.PyCapsule_GetPointer(ctypes.py_object(capsule), ctypes.c_char_p(name)))
    yield
    use_sgemm()


# Matrices of a million numbers: multiplied in blocks, their rows whole lines of the cache or not.
@pytest.mark.parametrize("inputs", [1040, 1027])
@pytest.mark.parametrize("n", [1, 37, 250])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_with_large_matrices_are_numpys(threads, blas, inputs, n, dtype):
    outputs, random = 1031, np.random.default_rng([inputs, n])
    w, x, dz = (random.standard_normal(shape).astype(dtype) for shape in ((outputs, inputs), (inputs, n), (outputs, n)))
    tolerance = {np.float32: 1e-3, np.float64: 1e-12}[dtype]

    y = np.full((outputs, n), np.nan, dtype)
    product(False, False, w, x, y)
    np.testing.assert_allclose(y, w.astype(float) @ x, rtol=0, atol=tolerance)

    dx = np.full((inputs, n), np.nan, dtype)
    product(True, False, w, dz, dx)
    np.testing.assert_allclose(dx, w.T.astype(float) @ dz, rtol=0, atol=tolerance)

    room = np.full(outputs * inputs + 64, np.nan, dtype)
    start = -room.ctypes.data % 64 // room.itemsize
    for first in (start, start + 1):  # at the beginning of a line of the cache, and beside it
        dw = room[first : first + outputs * inputs].reshape(outputs, inputs)
        product(False, True, dz, x, dw)
        np.testing.assert_allclose(dw, dz.astype(float) @ x.T, rtol=0, atol=tolerance)


@pytest.mark.parametrize("wrong", [((3, 4), (4, 5), (3, 4)), ((3, 4), (3, 5), (3, 5)), ((3, 0), (0, 5), (3, 5))])
def test_wrong_shapes_are_refused(wrong):
    with pytest.raises(AssertionError):
        product(False, False, *(np.ones(shape, np.float32) for shape in wrong))
