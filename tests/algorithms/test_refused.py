"""What shards refuse while they train: counted in each record, by shard."""

import numpy as np
from algorithms.digits import Digits, Heard

from distbelief.algorithms import downpour
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.sim import Cluster
from distbelief.launch.roles import assign
from distbelief.optim import Adagrad
from distbelief.server.messages import HEADER, PUSH, record

SHARDS, RANKS = 2, 4


class Babbling(Digits):
    """Digits whose replica 0 sends shard 1 a header that nobody knows, with each of its batches."""

    def __init__(self, endpoint):
        super().__init__()
        self._endpoint = endpoint

    def batches(self, replica: int, replicas: int):
        batches = super().batches(replica, replicas)
        if replica == 0:
            epoch = batches.epoch
            batches.epoch = lambda number: (self._babble(batch) for batch in epoch(number))
        return batches

    def _babble(self, batch):
        self._endpoint.wait_all([self._endpoint.send(record(HEADER, kind=77), 1, PUSH)], 20.0, "shard 1")
        return batch


def test_each_record_tells_how_many(capsys):
    heard, evaluate = Heard(), Evaluate(every_examples=200)

    def program(endpoint):
        cast = assign(RANKS, SHARDS)
        downpour.train(
            endpoint, cast, Babbling(endpoint), Adagrad(rate=0.02), Downpour(), Stop(epochs=1), evaluate, heard, 20.0
        )

    Cluster(RANKS, flops=1e8).run(program)
    refused = np.array([evaluation.refused for evaluation in heard.evaluations])
    said = capsys.readouterr().err.count("refused a header of unknown kind 77")
    assert refused[:, 0].tolist() == [0] * len(refused) and (np.diff(refused[:, 1]) >= 0).all()
    assert 5 < refused[-1, 1] <= said
