"""Networks that compute in bfloat16: their gradient beside float32's, their memory, and what they learn."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from distbelief.kernels import use_gemm16, use_kernels16, widen
from distbelief.nn import LOSSES, Arena, Network, build
from distbelief.nn.specs import ConvolutionSpec, DenseSpec, LocalSpec, PoolSpec
from distbelief.processor import mkl, prepare

DENSE = ([DenseSpec(70, "tanh"), DenseSpec(50, "sigmoid"), DenseSpec(40, "relu"), DenseSpec(10)], 60)
IMAGES = ([LocalSpec(3, 3, 1, "tanh"), PoolSpec(2), DenseSpec(40, "sigmoid"), DenseSpec(10)], [8, 8, 2])
networks = pytest.mark.parametrize("described", [DENSE, IMAGES], ids=["dense", "images"])


@pytest.fixture
def digits():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def a_network(described, dtype, batch=32, **settings):
    return Network(build(*described), batch, dtype, **settings)


def a_batch(network, n):
    random = np.random.default_rng(0)
    x = random.standard_normal((network.inputs, n)).astype(np.float32)
    return SimpleNamespace(x_in=x, labels=random.integers(0, network.classes, n))


def gradient_of(network, batch):
    parameters, gradient = Arena(network.layout, network.dtype), Arena(network.layout, network.dtype)
    network.initialise(parameters, seed=0)
    before = parameters.flat.copy()
    loss = network.gradient(parameters, batch, gradient)
    np.testing.assert_array_equal(parameters.flat, before)
    return loss, gradient


@networks
@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("n", [1, 32])
def test_the_gradient_is_float32s_but_for_roundings_to_bfloat16(described, loss, n):
    """A sum has about ten roundings of 2^-9 on its way, of either sign; 2^-8 for each four layers leaves some room."""
    exact, rounded = (a_network(described, dtype, loss=LOSSES[loss]()) for dtype in ("float32", "bfloat16"))
    batch = a_batch(exact, n)
    (exact_loss, exact_gradient), (loss, gradient) = gradient_of(exact, batch), gradient_of(rounded, batch)
    assert rounded.dtype == np.float32 and gradient.flat.dtype == np.float32
    assert loss == pytest.approx(exact_loss, rel=2.0**-6)
    for name in exact.layout.shapes:
        error = np.linalg.norm(gradient[name] - exact_gradient[name])
        assert 0 < error < 2.0**-5 * np.linalg.norm(exact_gradient[name]), name


def test_outputs_between_dense_layers_take_half_the_memory():
    exact, rounded = (a_network(DENSE, dtype) for dtype in ("float32", "bfloat16"))
    between, last = 4 * 32 * (70 + 50 + 40), 4 * 32 * 10
    assert exact.memory.activations == between + last
    assert rounded.memory.activations == between // 2 + last
    weights = 60 * 70 + 70 * 50 + 50 * 40 + 40 * 10
    assert rounded.memory.parameters - exact.memory.parameters == 2 * weights


def test_a_smaller_batch_after_a_larger_one():
    network = a_network(DENSE, "bfloat16")
    gradient_of(network, a_batch(network, 32))
    fresh = a_network(DENSE, "bfloat16")
    for n in (7, 1):
        loss, gradient = gradient_of(network, a_batch(network, n))
        other_loss, other = gradient_of(fresh, a_batch(fresh, n))
        assert loss == other_loss
        np.testing.assert_array_equal(gradient.flat, other.flat)


@networks
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_parameters_held_in_bfloat16_give_the_gradient_of_the_same_numbers_in_float32(described, penalty):
    held = a_network(described, "bfloat16", held="bfloat16", penalty=penalty)
    rounded = a_network(described, "bfloat16", penalty=penalty)
    bits, gradient = Arena(held.layout, held.held), Arena(held.layout, held.dtype)
    held.initialise(bits, seed=0)
    bits.flat[::7] += 1  # biases are not all zero then
    bits.flat.flags.writeable = False
    same, other = Arena(held.layout), Arena(held.layout)
    widen(bits.flat, same.flat)
    for n in (32, 5):
        batch = a_batch(held, n)
        assert held.gradient(bits, batch, gradient) == rounded.gradient(same, batch, other)
        np.testing.assert_array_equal(gradient.flat, other.flat)
        assert held.score(bits, batch) == rounded.score(same, batch)


@networks
def test_parameters_held_in_bfloat16_have_no_copy(described):
    """Half the bytes of float32, and nothing of their size besides but the gradient."""
    exact, held = a_network(described, "float32"), a_network(described, "bfloat16", held="bfloat16")
    assert held.memory.parameters == exact.memory.parameters // 2 == 2 * held.layout.size
    assert held.memory.gradients == exact.memory.gradients


def test_the_beginning_held_in_bfloat16_is_that_of_float32_rounded():
    exact, held = a_network(IMAGES, "float32"), a_network(IMAGES, "bfloat16", held="bfloat16")
    parameters, bits, widened = Arena(exact.layout), Arena(held.layout, held.held), Arena(exact.layout)
    exact.initialise(parameters, seed=3)
    held.initialise(bits, seed=3)
    widen(bits.flat, widened.flat)
    np.testing.assert_allclose(widened.flat, parameters.flat, rtol=2.0**-8, atol=0)


def test_what_cannot_be_held_in_bfloat16_is_refused():
    with pytest.raises(ValueError, match="convolution0: parameters held in bfloat16 are for dense and locally"):
        a_network(([ConvolutionSpec(2, 3), DenseSpec(10)], [8, 8, 2]), "bfloat16", held="bfloat16")
    with pytest.raises(ValueError, match="held in bfloat16, computed in float32: expected bfloat16 for both"):
        a_network(DENSE, "float32", held="bfloat16")


@pytest.mark.parametrize("way", ["mkl", "amx", "avx512"])
@networks
def test_products_of_bfloat16_and_widened_ones_give_the_same_but_for_the_order_of_sums(described, way):
    if way == "mkl" and mkl.library() is None:
        pytest.skip("MKL is not installed")
    if way != "mkl" and not use_kernels16(way):
        pytest.skip(f"this CPU has no {way} for bfloat16")
    use_kernels16()
    widened = a_network(described, "bfloat16")
    _, gradient = gradient_of(widened, a_batch(widened, 32))
    try:
        if way == "mkl":
            use_gemm16(mkl.address("cblas_gemm_bf16bf16f32"))
        else:
            use_kernels16(way)
        other = a_network(described, "bfloat16")
        _, theirs = gradient_of(other, a_batch(other, 32))
    finally:
        use_kernels16()
        use_gemm16()
    # Where a sum's last place decides a rounding to bfloat16, that number moves by 2^-8 of itself.
    assert np.linalg.norm(theirs.flat - gradient.flat) < 2.0**-10 * np.linalg.norm(gradient.flat)


def test_a_network_learns_digits_as_well_as_in_float32(digits):
    x, labels = digits
    x = np.ascontiguousarray(x.T / 16, np.float32)
    right = {}
    for dtype in ("float32", "bfloat16"):
        network = a_network(([DenseSpec(64, "relu"), DenseSpec(10)], 64), dtype, batch=400)
        parameters, gradient = Arena(network.layout), Arena(network.layout)
        network.initialise(parameters, seed=0)
        for step in range(1500):
            rows = np.arange(32 * step, 32 * (step + 1)) % 1397
            batch = SimpleNamespace(x_in=np.ascontiguousarray(x[:, rows]), labels=labels[rows])
            network.gradient(parameters, batch, gradient)
            parameters.flat -= np.float32(0.1) * gradient.flat
        test = SimpleNamespace(x_in=np.ascontiguousarray(x[:, 1397:]), labels=labels[1397:])
        right[dtype] = network.score(parameters, test)[1] / 400
    assert right["float32"] > 0.9
    assert abs(right["bfloat16"] - right["float32"]) <= 0.01


def test_who_multiplies_is_told(monkeypatch):
    from distbelief.processor import cpu

    module = sys.modules[prepare.__module__]
    monkeypatch.setattr(cpu, "features", lambda: {"avx512_bf16"})
    for has, library, words in [
        ("amx", None, "by AMX, in kernels of ours"),
        ("avx512", None, "by AVX512-BF16, in kernels of ours"),
        (None, SimpleNamespace(cblas_gemm_bf16bf16f32=None), "by MKL"),
        (None, None, "widened to float32: MKL is not installed (the extra distbelief[mkl])"),
    ]:
        monkeypatch.setattr(module, "kernels16", lambda *wanted, has=has: has)
        monkeypatch.setattr(mkl, "library", lambda library=library: library)
        assert module.bfloat16() == words


def test_what_is_lacking_is_said_in_one_line(monkeypatch):
    from distbelief.processor import cpu

    module = sys.modules[prepare.__module__]  # of the same name as the function
    monkeypatch.setattr(module, "use_kernels16", lambda *wanted: None)
    monkeypatch.setattr(cpu, "features", lambda: {"avx2"})
    words = prepare(dtype="bfloat16")
    assert words.startswith("bfloat16: this CPU has neither amx_bf16 nor avx512_bf16; ") and "\n" not in words
    assert prepare(dtype="float32") is None
    monkeypatch.setattr(cpu, "features", lambda: {"avx512_bf16"})
    monkeypatch.setattr(mkl, "library", lambda: None)
    assert "MKL is not installed" in prepare(dtype="bfloat16")
    monkeypatch.setattr(mkl, "library", SimpleNamespace)  # as of before 2021
    assert "this MKL has no cblas_gemm_bf16bf16f32" in prepare(dtype="bfloat16")
    monkeypatch.setattr(module, "use_kernels16", lambda *wanted: wanted and wanted[0])
    assert prepare(dtype="bfloat16") is None  # in kernels of ours
    assert prepare(dtype="float32") is None
