"""A small run, as the tests of reports need it: its configuration, an evaluation, an outcome."""

import msgspec
import numpy as np

from distbelief.algorithms.progress import Evaluation, Outcome
from distbelief.config import Config
from distbelief.nn import Arena, Layout

CONFIG = msgspec.convert(
    {
        "run": {"folder": "/runs/small"},
        "data": {"train": {"inputs": "/x.npy", "labels": "/y.npy"}, "held_out": 5},
        "network": {"inputs": 4, "layers": [{"kind": "dense", "outputs": 2}]},
        "rule": {"kind": "adagrad", "rate": 0.1},
        "stop": {"epochs": 1},
    },
    Config,
)
LAYOUT = Layout({"dense0.w": (2, 4), "dense0.b": (2,)})


def an_evaluation(examples=640, **changes):
    return Evaluation(
        **{
            "time": 12.5,
            "step": 20,
            "examples": examples,
            "loss": 0.4567,
            "accuracy": 0.8125,
            "train_loss": 0.5,
            "examples_per_s": 51.2,
        }
        | changes
    )


def an_outcome():
    parameters = Arena(LAYOUT)
    parameters.flat[:] = np.arange(LAYOUT.size)
    return Outcome(False, parameters, an_evaluation())
