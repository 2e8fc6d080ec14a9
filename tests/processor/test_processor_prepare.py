"""Cores and BLAS at run time: threads change who computes, not what; MKL computes what SciPy's BLAS does."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from distbelief.errors import UserError
from distbelief.kernels import (
    ACTIVATIONS,
    accrue,
    adagrad,
    dense_backward,
    dense_forward,
    l2_penalty,
    logistic_loss,
    momentum,
    narrow,
    sgd,
    softmax_cross_entropy,
    squared_error,
    squared_error_of_classes,
    used_threads,
)
from distbelief.processor import mkl, prepare

without_mkl = pytest.mark.skipif(mkl.library() is not None, reason="MKL is installed")
with_mkl = pytest.mark.skipif(mkl.library() is None, reason="MKL is not installed")


@pytest.fixture(autouse=True)
def as_before():
    with threadpool_limits():  # remembers the BLAS libraries' threads
        yield
    prepare()


def a_dense_layer(outputs=331, inputs=257, n=40) -> list[np.ndarray]:
    """y, dy, dw, db, dx of a layer large enough for several threads."""
    random = np.random.default_rng(0)
    w, b, x, dy = (
        random.standard_normal(s, np.float32) for s in [(outputs, inputs), outputs, (inputs, n), (outputs, n)]
    )
    w /= np.sqrt(np.float32(inputs))
    y, dw, db, dx = np.empty_like(dy), np.empty_like(w), np.empty_like(b), np.empty_like(x)
    dense_forward(w, b, x, ACTIVATIONS["tanh"], y)
    dense_backward(w, x, y, ACTIVATIONS["tanh"], dy, dw, db, dx)
    return [y, dy, dw, db, dx]


def a_softmax(classes=2000, n=37) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    z, labels = random.standard_normal((classes, n), np.float32), random.integers(0, classes, n)
    dz = np.empty_like(z)
    loss = softmax_cross_entropy(z, labels, 1.0, dz, np.empty((2, n)))
    return [np.array(loss), dz]


def other_losses(classes=8000, n=37) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    z, targets = random.standard_normal((2, classes, n), np.float32)
    labels, found = random.integers(0, classes, n), []
    for call in (
        lambda dz: logistic_loss(z, labels, 1.0, np.empty((2, n)), dz),
        lambda dz: squared_error(z, targets, 1.0, dz),
        lambda dz: squared_error_of_classes(z, labels, 1.0, dz),
        lambda dz: l2_penalty(z.reshape(-1), 0.1, dz.reshape(-1)),
    ):
        dz = np.zeros_like(z)
        found += [np.array(call(dz)), dz]
    return found


def updates(size=200_001) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    parameters, gradient = random.standard_normal((2, size), np.float32)
    squares, velocity, accrued = np.ones(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    shadow = np.empty(size, np.uint16)
    sgd(parameters, gradient, 0.1, shadow)
    adagrad(parameters, gradient, squares, 0.1)
    momentum(parameters, gradient, velocity, 0.1, 0.9)
    assert accrue(parameters, accrued, gradient, 0.1)
    gradient[size - 3] = np.nan
    assert not accrue(parameters, accrued, gradient, 0.1)
    copy = np.empty(size, np.uint16)
    narrow(parameters, copy)
    return [parameters, squares, velocity, accrued, shadow, copy]


@pytest.mark.parametrize("work", [a_softmax, other_losses, updates])
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_change_nothing_in_our_own_loops(work, threads):
    alone = work()
    prepare(threads)
    assert used_threads() == threads
    for one, several in zip(alone, work(), strict=True):
        np.testing.assert_array_equal(several, one)


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("n", [1, 40])
def test_threads_change_a_dense_layer_by_roundings_of_the_blas_at_most(threads, n):
    alone = a_dense_layer(n=n, outputs=40 * 331 // n)
    prepare(threads)
    for one, several in zip(alone, a_dense_layer(n=n, outputs=40 * 331 // n), strict=True):
        np.testing.assert_allclose(several, one, rtol=0, atol=5e-6 * np.abs(one).max())


def test_each_thread_has_blas_calls_of_its_own():
    threadpool_limits(2, user_api="blas")
    prepare(3)
    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


@without_mkl
def test_mkl_that_is_missing_is_one_line():
    with pytest.raises(UserError, match=r"^run.blas: MKL is not installed, expected the extra distbelief\[mkl\]"):
        prepare(blas="mkl")
    assert mkl.version() is None


@with_mkl
def test_mkl_computes_what_scipys_blas_does():
    ours = a_dense_layer(inputs=2000, n=4)  # of so few examples no product is in blocks of ours
    prepare(blas="mkl")
    theirs = a_dense_layer(inputs=2000, n=4)
    assert any((one != other).any() for one, other in zip(ours, theirs, strict=True))  # another order of summation
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=5e-6 * np.abs(one).max())
    assert "Math Kernel" in mkl.version()


@with_mkl
def test_a_function_that_mkl_lacks_is_one_line():
    with pytest.raises(UserError, match="this MKL has no no_such_function"):
        mkl.address("no_such_function")
