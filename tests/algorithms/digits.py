"""A small real problem for the training procedures: scikit-learn's handwritten digits."""

import functools
import math

import numpy as np
import sklearn.datasets

from distbelief.algorithms import downpour, serial
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.sim import Cluster
from distbelief.data import Batches, dataset_of, held_out, part
from distbelief.launch.roles import assign
from distbelief.nn import Dense, Network
from distbelief.server import Server


@functools.cache
def _dataset():
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    return dataset_of(images.astype(np.uint8), labels)


class Digits:
    """1797 images of 8x8 pixels, 300 of them held out; a network of one hidden layer (algorithms.model.Problem)."""

    def __init__(self, batch: int = 16, dtype=np.float32, seed: int = 0, hidden: int = 32):
        self.seed = seed
        self._batch = batch
        self._dtype = dtype
        self._inputs_dtype = np.float32 if dtype == "bfloat16" else dtype
        self._hidden = hidden
        self._training, self._held_out = held_out(_dataset().examples, 300, seed)

    @property
    def training_examples(self) -> int:
        return self._training.size

    def model(self) -> Network:
        layers = [Dense("dense0", 64, self._hidden, "relu"), Dense("dense1", self._hidden, 10)]
        return Network(layers, max(self._batch, 100), self._dtype)

    def batches(self, replica: int, replicas: int) -> Batches:
        return self._read(part(self._training, replica, replicas), self._batch, replica)

    def held_out(self):
        return self.held_out_examples().in_order()

    def examples(self) -> Batches:
        return self._read(self._training, self._batch)

    def held_out_examples(self) -> Batches:
        return self._read(self._held_out, 100)

    def _read(self, indices, batch, stream=0) -> Batches:
        return Batches(
            _dataset(), indices, batch, seed=self.seed, stream=stream, scale=1 / 16, dtype=self._inputs_dtype
        )


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.evaluations = []
        self.batch_evaluations = []
        self.reports = []
        self.warnings = []

    def progress(self, progress):
        self.reports.append(progress)

    def evaluated(self, evaluation):
        self.evaluations.append(evaluation)

    def batch_evaluated(self, evaluation):
        self.batch_evaluations.append(evaluation)

    def warned(self, words):
        self.warnings.append(words)


def train_serially(problem, rule, stop=Stop(epochs=1), evaluate=Evaluate()):
    heard = Heard()
    return serial.train(problem, rule, stop, evaluate, heard), heard


def train_in_simulator(
    problem,
    rule,
    *,
    ranks: int,
    shards: int = 1,
    settings: Downpour = Downpour(),
    stop: Stop = Stop(epochs=1),
    evaluate: Evaluate = Evaluate(),
    timeout: float = math.inf,
    server: Server | None = None,
    roles: Roles | None = None,
    deaths: dict[int, float] | None = None,
    **cluster,
):
    """Downpour on a simulated cluster: the outcomes by rank, what the coordinator heard, and the cluster.

    `deaths`: when ranks are killed.
    """
    heard = Heard()
    simulated = Cluster(ranks, **cluster)
    for rank, moment in (deaths or {}).items():
        simulated.kill(rank, at=moment)
    roles = roles or assign(ranks, shards)
    outcomes = simulated.run(
        lambda endpoint: downpour.train(
            endpoint, roles, problem, rule, settings, stop, evaluate, heard, min(timeout, 1e6), server
        )
    )
    return outcomes, heard, simulated
