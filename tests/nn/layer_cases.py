"""Layers of every kind in odd sizes, and their forward passes in plain NumPy: loops over windows, in float64."""

import numpy as np

from distbelief.nn import Convolution, Dense, LocallyConnected, Normalise, Pool

# Ones, primes, windows that are the whole image, strides that do not divide, overlapping and leaping windows.
LAYERS = [
    Dense("dense0", 7, 5, "tanh"),
    Dense("dense0", (3, 2, 5), 4, "sigmoid"),
    LocallyConnected("local0", (7, 5, 3), 2, (3, 2), 2, "tanh"),
    LocallyConnected("local0", (5, 6, 1), 5, 2, 1, "sigmoid"),
    LocallyConnected("local0", (1, 1, 1), 1, 1),
    LocallyConnected("local0", (5, 5, 2), 3, 5, 3),
    LocallyConnected("local0", (11, 3, 2), 3, 3, 4),
    Convolution("convolution0", (7, 5, 3), 2, (3, 2), 2, "tanh"),
    Convolution("convolution0", (6, 5, 2), 7, 3),
    Convolution("convolution0", (4, 4, 1), 1, 4, 2, "sigmoid"),
    Pool("pool0", (7, 5, 3), (3, 2), 2, "l2"),
    Pool("pool0", (7, 6, 2), 2, 3, "l2"),
    Pool("pool0", (5, 5, 1), 5, 1, "l2"),
    Pool("pool0", (5, 20, 2), 5, 6, "l2"),
    Pool("pool0", (7, 5, 3), 3, 1, "max"),
    Pool("pool0", (7, 6, 2), 2, 3, "max"),
    Pool("pool0", (7, 5, 3), (3, 2), 2, "average"),
    Pool("pool0", (1, 1, 37), 1, 1, "average"),
    Normalise("normalise0", (7, 6, 3), (5, 3)),
    Normalise("normalise0", (11, 4, 1), 3, 0.7),
    Normalise("normalise0", (5, 5, 2), 5, 1.0),
    Normalise("normalise0", (3, 3, 2), 1, 5.0),
]


def name_of(layer) -> str:
    options = [getattr(layer, key) for key in ("window", "function", "activation", "floor") if hasattr(layer, key)]
    return "-".join([type(layer).__name__, *map(str, layer.below), *(str(o).replace(" ", "") for o in options)])


ACTIVATE = {
    "linear": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}


def reference(layer, parameters, x):
    """The layer's output in float64."""
    x = x.astype(np.float64)
    if isinstance(layer, Normalise):
        return _normalise(layer, x)
    w, b = (parameters[f"{layer.name}.{kind}"].astype(np.float64) if layer.shapes else None for kind in "wb")
    if isinstance(layer, Dense):
        return ACTIVATE[layer.activation](w @ x.reshape(-1, x.shape[-1]) + b[:, None])
    y = np.empty((*layer.shape, x.shape[-1]))
    kh, kw, stride = layer.window
    for i, j in np.ndindex(layer.shape[:2]):
        patch = x[i * stride : i * stride + kh, j * stride : j * stride + kw]
        if isinstance(layer, Pool):
            y[i, j] = _pool(layer.function, patch.reshape(kh * kw, *patch.shape[2:]))
        else:
            filters, biases = (w, b) if layer.tied else (w[i, j], b[i, j])
            z = np.einsum("muvc,uvcn->mn", filters, patch) + biases[:, None]
            y[i, j] = ACTIVATE[layer.activation](z)
    return y


def _pool(function, pixels):
    if function == "l2":
        return np.sqrt((pixels**2).sum(axis=0))
    return pixels.max(axis=0) if function == "max" else pixels.mean(axis=0)


def _normalise(layer, x):
    v = x - _weighted_mean(layer, x)
    return v / np.maximum(layer.floor, np.sqrt(_weighted_mean(layer, v**2)))


def _weighted_mean(layer, x):
    """Over the two-dimensional window around each pixel and all maps: not separable, border by border."""
    height, width, maps, n = x.shape
    kh, kw = layer.window.kh, layer.window.kw
    mean = np.empty((height, width, 1, n))
    for h, w in np.ndindex(height, width):
        total, weights = np.zeros(n), 0.0
        for u in range(max(0, h - kh // 2), min(height, h + kh // 2 + 1)):
            for v in range(max(0, w - kw // 2), min(width, w + kw // 2 + 1)):
                weight = np.exp(-8 * (((u - h) / kh) ** 2 + ((v - w) / kw) ** 2))
                total += weight * x[u, v].sum(axis=0)
                weights += maps * weight
        mean[h, w, 0] = total / weights
    return mean


def some_parameters(layer, dtype=np.float64, seed=1):
    random = np.random.default_rng(seed)
    return {name: random.uniform(-1, 1, shape).astype(dtype) for name, shape in layer.shapes.items()}


def forward(layer, parameters, x):
    """(y, scratch); what the layer must overwrite is full of NaN, what it may only read is read-only."""
    y, scratch = (
        np.full((*layer.shape, x.shape[-1]), np.nan, x.dtype),
        np.full(layer.scratch(x.shape[-1]), np.nan, x.dtype),
    )
    x = x.copy()
    x.flags.writeable = False
    layer.forward(parameters, x, y, scratch)
    return y, scratch


def backward(layer, parameters, x, dy):
    """(dx, gradient) of sum(dy y)."""
    y, scratch = forward(layer, parameters, x)
    if not layer.keeps_scratch:
        scratch[:] = np.nan
    y.flags.writeable = False
    gradient = {name: np.full(shape, np.nan, x.dtype) for name, shape in layer.shapes.items()}
    dx = np.full_like(x, np.nan)
    layer.backward(parameters, x, y, dy.copy(), gradient, dx, scratch)
    return dx, gradient
