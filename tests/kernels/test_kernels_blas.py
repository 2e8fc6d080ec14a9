"""Products on their own against NumPy, shared by threads or not."""

import numpy as np
import pytest

from distbelief.kernels import product, use_threads

SIZES = [(1, 1, 1), (17, 5, 3), (64, 32, 48), (131, 257, 67)]


@pytest.fixture(params=[1, 3])
def threads(request):
    use_threads(request.param)
    yield
    use_threads(1)


@pytest.mark.parametrize(("rows", "columns", "inner"), SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_product_is_numpys(threads, rows, columns, inner, dtype, transpose_a, transpose_b):
    random = np.random.default_rng([rows, columns, inner])
    a, b = random.standard_normal((rows, inner)), random.standard_normal((inner, columns))
    out = np.full((rows, columns), np.nan, dtype)
    given = [np.ascontiguousarray(m.T if t else m, dtype) for m, t in ((a, transpose_a), (b, transpose_b))]
    product(transpose_a, transpose_b, *given, out)
    tolerance = {np.float32: 1e-5, np.float64: 1e-13}[dtype]
    np.testing.assert_allclose(out, a @ b, rtol=0, atol=tolerance * max(1, np.abs(a @ b).max()))


@pytest.mark.parametrize("wrong", [((3, 4), (4, 5), (3, 4)), ((3, 4), (3, 5), (3, 5)), ((3, 0), (0, 5), (3, 5))])
def test_wrong_shapes_are_refused(wrong):
    with pytest.raises(AssertionError):
        product(False, False, *(np.ones(shape, np.float32) for shape in wrong))
