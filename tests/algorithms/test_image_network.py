"""A network of images, from a configuration to what it has learnt: filters, pooling, normalisation, logistic units."""

import msgspec
import numpy as np
import pytest
import sklearn.datasets
from algorithms.digits import train_in_simulator, train_serially

from distbelief.algorithms.settings import Stop
from distbelief.config import Config
from distbelief.experiment import Experiment
from distbelief.optim import Adagrad

LAYERS = [
    {"kind": "local", "maps": 6, "window": 3, "activation": "tanh"},
    {"kind": "pool", "window": 2, "stride": 1, "function": "l2"},
    {"kind": "normalise", "window": 3},
    {"kind": "dense", "outputs": 10},
]


@pytest.fixture
def digits(tmp_path):
    """1797 images of 8x8 pixels, 300 of them held out."""
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    np.save(tmp_path / "x.npy", images.reshape(-1, 8, 8).astype(np.uint8))
    np.save(tmp_path / "y.npy", labels)
    table = {
        "run": {"folder": "unused"},
        "data": {
            "train": {"inputs": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy")},
            "held_out": 300,
            "batch": 16,
            "scale": 1 / 16,
        },
        "network": {"inputs": [8, 8, 1], "layers": LAYERS, "loss": "logistic", "penalty": 1e-4},
        "rule": {"kind": "adagrad", "rate": 0.05},
        "stop": {"epochs": 1},
    }
    return Experiment(msgspec.convert(table, Config))


def test_it_learns_digits(digits):
    """10 % is chance; a network that has lost its gradients stays there."""
    outcome, heard = train_serially(digits, Adagrad(0.05), Stop(epochs=3))
    first, last = heard.evaluations[0], heard.evaluations[-1]
    assert outcome.fault is None
    assert first.accuracy < 0.3 and last.accuracy > 0.9 and last.loss < 0.3 * first.loss


def test_it_learns_digits_under_downpour(digits):
    _, heard, _ = train_in_simulator(digits, Adagrad(0.05), ranks=4, stop=Stop(epochs=3))
    assert heard.evaluations[-1].accuracy > 0.85
