"""Every kind of layer against PyTorch, where it is installed: outputs and, differentiated by it, gradients."""

import numpy as np
import pytest
from nn.layer_cases import LAYERS, backward, forward, name_of, some_parameters

from distbelief.nn import Dense, Normalise, Pool
from distbelief.nn.layers.normalisation import gaussian

torch = pytest.importorskip("torch")
F = torch.nn.functional


def in_torch(layer, parameters, x):
    """The layer in PyTorch's words; x [*below, n] as ours, the batch last."""
    w, b = (parameters.get(f"{layer.name}.{kind}") for kind in "wb")
    if isinstance(layer, Dense):
        return _activate(layer, w @ x.reshape(-1, x.shape[-1]) + b[:, None])
    images = x.permute(3, 2, 0, 1)
    if isinstance(layer, Normalise):
        return _normalise(layer, images).permute(2, 3, 1, 0)
    kh, kw, stride = layer.window
    if isinstance(layer, Pool):
        if layer.function == "max":
            y = F.max_pool2d(images, (kh, kw), stride)
        elif layer.function == "average":
            y = F.avg_pool2d(images, (kh, kw), stride)
        else:
            y = F.lp_pool2d(images, 2, (kh, kw), stride)
        return y.permute(2, 3, 1, 0)
    if layer.tied:
        return _activate(layer, F.conv2d(images, w.permute(0, 3, 1, 2), b, stride).permute(2, 3, 1, 0))
    patches = x.unfold(0, kh, stride).unfold(1, kw, stride)  # [oh, ow, C, n, kh, kw]
    return _activate(layer, torch.einsum("ijmuvc,ijcnuv->ijmn", w, patches) + b[..., None])


def _activate(layer, z):
    return z if layer.activation == "linear" else getattr(torch, layer.activation)(z)


def _normalise(layer, images):
    """With matrices of the borders' weights, to the left and right of each plane."""
    height, width, maps = layer.below

    def matrix(k, size):
        weights = torch.zeros(size, size + k - 1, dtype=images.dtype)
        for i, taps in enumerate(torch.from_numpy(gaussian(k, size))):
            weights[i, i : i + k] = taps
        return weights[:, k // 2 : k // 2 + size]

    rows, columns = matrix(layer.window.kh, height), matrix(layer.window.kw, width)

    def blur(planes):
        return rows @ planes.mean(dim=1, keepdim=True) @ columns.T

    v = images - blur(images)
    return v / torch.clamp(torch.sqrt(blur(v**2)), min=layer.floor)


@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-10)])
def test_outputs_and_gradients_are_torchs(layer, dtype, tolerance):
    random = np.random.default_rng(4)
    x, dy = (random.standard_normal((*shape, 5)).astype(dtype) for shape in (layer.below, layer.shape))
    parameters = some_parameters(layer, dtype)
    leaves = {name: torch.from_numpy(value).requires_grad_() for name, value in (parameters | {"x": x}).items()}
    y = in_torch(layer, leaves, leaves["x"])
    y.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(forward(layer, parameters, x)[0], y.detach().numpy(), rtol=0, atol=tolerance)
    dx, gradient = backward(layer, parameters, x, dy)
    for name, ours in (gradient | {"x": dx}).items():
        true = leaves[name].grad.numpy()
        np.testing.assert_allclose(ours, true, rtol=0, atol=tolerance * max(1, np.abs(true).max()), err_msg=name)
