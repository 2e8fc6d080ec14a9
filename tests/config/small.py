"""A small configuration, and what is said of one that is wrong."""

import pytest

from distbelief.config import load
from distbelief.errors import UserError

DENSE = {"kind": "dense"}
SMALL = {
    "run": {"folder": "runs/small"},
    "data": {"train": {"inputs": "x.npy", "labels": "y.npy"}, "held_out": 5},
    "network": {"inputs": 4, "layers": [DENSE | {"outputs": 3, "activation": "relu"}, DENSE | {"outputs": 2}]},
    "rule": {"kind": "adagrad", "rate": 0.1},
    "stop": {"epochs": 1},
}


def refusal(path, *settings):
    """What `load` says; it must be one line."""
    with pytest.raises(UserError) as caught:
        load(path, settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def fault(path, *settings):
    """What `load` says after the setting, or without one the file, to blame: the dotted key, and what is wrong."""
    text = refusal(path, *settings)
    blamed = f"--set {settings[-1]}: " if settings else f"{path}: "
    assert text.startswith(blamed)
    return text.removeprefix(blamed)
