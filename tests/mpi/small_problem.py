"""A problem that a small network learns in a second: noisy images of ten classes, in files of several kinds.

`write` makes a folder with the data and a configuration; `train` is the command that trains on it.
"""

import gzip
import json
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

CLASSES = 10
SIDE = 8
WIDTH = 32  # of the hidden layer
HELD_OUT = 200
TRAINING = 2000  # examples that are trained on in an epoch
TEST = 500
EPOCHS = 4
BATCH = 20
N_FETCH, N_PUSH = 2, 3
PARAMETERS = (SIDE * SIDE + 1) * WIDTH + (WIDTH + 1) * CLASSES
COMMAND = [sys.executable, "-m", "distbelief"]


@dataclass(frozen=True)
class Problem:
    """A folder with config.toml, which names the data files beside it by relative paths: run commands in it."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    def train(self, run: Path, settings: Iterable[str] = ()) -> list[str]:
        """The command that trains into the folder `run`, with `--set` for each of `settings`."""
        words = [*COMMAND, "train", str(self.config), "--set", f"run.folder={run}"]
        for setting in settings:
            words += ["--set", setting]
        return words


@dataclass(frozen=True)
class Run:
    """What a run left in its folder."""

    folder: Path

    @property
    def metrics(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def result(self) -> dict:
        return json.loads((self.folder / "result.json").read_text())

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


def write(folder: Path) -> Problem:
    """Make a problem in `folder`. The same one every time."""
    images, labels = examples(HELD_OUT + TRAINING + TEST)
    train, test = slice(HELD_OUT + TRAINING), slice(HELD_OUT + TRAINING, None)
    (folder / "train-images.gz").write_bytes(gzip.compress(idx(images[train]), mtime=0))
    (folder / "train-labels").write_bytes(idx(labels[train]))
    np.save(folder / "test-images.npy", images[test])
    np.save(folder / "test-labels.npy", labels[test])
    write_configuration(folder / "config.toml", configuration())
    return Problem(folder)


def write_configuration(path: Path, table: dict) -> None:
    path.write_text(tomli_w.dumps(table))


def examples(count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [count, SIDE, SIDE], each its class's image under noise, and uint8 labels [count]."""
    random = np.random.default_rng(7)
    prototypes = random.uniform(64, 192, (CLASSES, SIDE, SIDE))
    labels = random.integers(0, CLASSES, count)
    noisy = prototypes[labels] + random.normal(0, 40, (count, SIDE, SIDE))
    return noisy.clip(0, 255).astype(np.uint8), labels.astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    """A uint8 array as an IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape) + array.tobytes()


def configuration() -> dict:
    """The table in config.toml."""
    return {
        "seed": 3,
        "run": {"folder": "run", "timeout": 30.0},
        "data": {
            "train": {"inputs": "train-images.gz", "labels": "train-labels"},
            "test": {"inputs": "test-images.npy", "labels": "test-labels.npy"},
            "held_out": HELD_OUT,
            "batch": BATCH,
            "scale": 1 / 128,
            "shift": -1.0,
        },
        "network": {
            "inputs": SIDE * SIDE,
            "layers": [
                {"kind": "dense", "outputs": WIDTH, "activation": "tanh"},
                {"kind": "dense", "outputs": CLASSES},
            ],
        },
        "rule": {"kind": "adagrad", "rate": 0.05},
        "downpour": {"n_fetch": N_FETCH, "n_push": N_PUSH, "warmstart": 10},
        "stop": {"epochs": EPOCHS},
        "evaluate": {"every_examples": TRAINING},
    }
