"""Downpour with replicas that are cut over several ranks: the same truth, evaluations by replica 0, faults, silence."""

import io
import math

import numpy as np
import pytest
from algorithms.digits import Digits, train_in_simulator, train_serially

from distbelief.algorithms.roles import Roles
from distbelief.algorithms.scoring import score
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.endpoint import DeadlineExpired
from distbelief.nn import Convolution, Dense, LocallyConnected, Network, Pool
from distbelief.optim import Adagrad, FixedRate
from distbelief.partition import Cut
from distbelief.server import Bounded, Compensated, Scaled, Server, pieces
from distbelief.server.messages import PAYLOADS

RULE = FixedRate(rate=0.1)


class CutDigits(Digits):
    """Digits whose network can be cut: images of 8x8 with filters of both kinds, or two dense layers."""

    def __init__(self, *arguments, images: bool = False, **settings):
        super().__init__(*arguments, **settings)
        self._layers = [Dense("dense0", 64, self._hidden, "relu"), Dense("dense1", self._hidden, 10)]
        if images:
            self._layers = [
                LocallyConnected("local0", (8, 8, 1), 2, 3, 1, "tanh"),
                Convolution("convolution1", (6, 6, 2), 3, 2),
                Pool("pool2", (5, 5, 3), 1, 1, "l2"),
                Dense("dense3", (5, 5, 3), 10),
            ]

    def model(self):
        return Network(self._layers, max(self._batch, 100), self._dtype)

    def cut(self, partitions):
        return Cut(self._layers, partitions, max(self._batch, 100), self._dtype)

    def test(self):
        return self.held_out()


def roles_of(replicas: int, partitions: int, shards: int, beside: bool = False) -> Roles:
    first = 0 if beside else shards
    cut = [[first + partitions * r + p for p in range(partitions)] for r in range(replicas)]
    return Roles(0, list(range(shards)), [ranks[0] for ranks in cut], cut)


def train(problem, rule=RULE, replicas=1, partitions=2, shards=2, beside=False, **options):
    ranks = replicas * partitions + (0 if beside else shards)
    roles = roles_of(replicas, partitions, shards, beside)
    return train_in_simulator(problem, rule, ranks=ranks, roles=roles, **{"flops": 1e9} | options)


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize(
    ("partitions", "shards", "beside"), [(1, 2, False), (2, 1, False), (3, 2, False), (3, 3, True)]
)
@pytest.mark.parametrize(("n_fetch", "n_push", "overlap"), [(1, 1, True), (2, 3, True), (1, 1, False)])
def test_one_replica_computes_what_serial_sgd_does(
    monkeypatch, images, partitions, shards, beside, n_fetch, n_push, overlap
):
    monkeypatch.setattr(pieces, "LEAST", 20)
    monkeypatch.setattr(pieces, "MOST", 500)
    problem = CutDigits(batch=48, dtype=np.float64, images=images)
    serial, told = train_serially(problem, RULE)
    outcomes, heard, _ = train(
        problem,
        partitions=partitions,
        shards=shards,
        beside=beside,
        settings=Downpour(n_fetch=n_fetch, n_push=n_push, overlap=overlap),
        latency=1e-4,
    )
    np.testing.assert_allclose(outcomes[0].parameters.flat, serial.parameters.flat, rtol=0, atol=1e-12)
    first, last = heard.evaluations
    # What all partitions push in a step is one update of each shard; stale by the two that may be on their way.
    assert last.updates == [-(-32 // n_push)] * shards and max(last.staleness_max) <= 2
    for found, true in zip((first, last), told.evaluations, strict=True):
        assert found.loss == pytest.approx(true.loss, rel=1e-12) and found.accuracy == true.accuracy
        assert (found.examples, found.step) == (true.examples, true.step)
    assert outcomes[0].test_score == (last.loss, last.accuracy)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fetch_wire", ["native", "bfloat16"])
def test_evaluations_try_what_the_shards_hold(fetch_wire, dtype):
    """Not what the replica has of it, rounded on the wire and with steps of its own that it has not pushed yet."""
    problem = CutDigits(batch=48, dtype=dtype)
    _, told = train_serially(problem, RULE)
    outcomes, heard, _ = train(
        problem,
        settings=Downpour(n_fetch=40, n_push=40),
        server=Server(fetch_wire=fetch_wire),
        evaluate=Evaluate(every_examples=500),
        stop=Stop(epochs=3),
    )
    before = [evaluation.loss for evaluation in heard.evaluations if evaluation.updates == [0, 0]]
    assert len(before) > 1  # the replica has taken steps meanwhile
    close = 1e-6 if dtype == "float32" else 1e-4  # sums of products that were rounded, in another order
    np.testing.assert_allclose(before, told.evaluations[0].loss, rtol=close)
    loss, accuracy = score(problem.model(), outcomes[0].parameters, problem.test())
    assert outcomes[0].test_score == (pytest.approx(loss, rel=close), accuracy)
    assert heard.evaluations[-1].loss < 0.8 * before[0]


@pytest.mark.parametrize(
    "staleness", [Scaled(), Compensated(strength=0.1), Bounded(steps=2)], ids=lambda kind: type(kind).__name__
)
def test_several_replicas_learn(staleness):
    outcomes, heard, _ = train(
        CutDigits(batch=32),
        Adagrad(rate=0.05),
        replicas=3,
        settings=Downpour(warmstart=20, n_push=2),
        server=Server(staleness=staleness, fetch_wire="bfloat16", push_wire="bfloat16"),
        stop=Stop(epochs=12),
        evaluate=Evaluate(every_examples=4000),
        flops=1e8,
        jitter=0.2,
    )
    assert not outcomes[0].failed
    last = heard.evaluations[-1]
    assert len(heard.evaluations) >= 4 and heard.evaluations[0].step == 0
    assert last.accuracy > 0.9 and last.examples == 12 * 1497
    assert last.drift <= 3 and not heard.warnings
    # Three replicas at work: a push meets about two updates of others, whatever the partitions.
    assert 0.5 < np.mean(last.staleness) < 4


def test_each_partition_talks_only_to_the_shards_that_hold_its_intervals():
    log = io.StringIO()
    problem = CutDigits(dtype=np.float64)
    train(problem, partitions=2, shards=8, log=log)
    lines = [line.split() for line in log.getvalue().splitlines()]
    placement = np.arange(9) * problem.model().layout.size // 8
    for partition, intervals in enumerate(problem.cut(2).intervals):
        rank = str(8 + partition)
        told = {int(words[3]) for words in lines if words[1:3] == [rank, "send"] and int(words[4]) in PAYLOADS}
        elements = np.concatenate([np.arange(*interval) for interval in intervals])
        assert told == set(np.searchsorted(placement, elements, side="right") - 1)


class Overflowing(CutDigits):
    """Partition 1 has an infinite gradient in its lower layer from some step on, though the loss is finite."""

    def cut(self, partitions):
        cut = super().cut(partitions)
        make = cut.model

        def model(peers):
            network, steps = make(peers), 0
            by_layers = network.gradient

            def gradient(parameters, batch, gradient, needed, produced):
                nonlocal steps
                steps += 1

                def soiled(*names):
                    if peers.partition == 1 and steps > 5 and "dense0.w" in names:
                        gradient["dense0.w"][-1, -1] = np.inf
                    produced(*names)

                return by_layers(parameters, batch, gradient, needed, soiled)

            network.gradient = gradient
            return network

        cut.model = model
        return cut


def test_a_number_that_is_not_finite_in_one_partition_ends_training_of_all():
    outcomes, heard, _ = train(Overflowing(), evaluate=Evaluate(every_examples=16))
    assert all(outcome.failed for outcome in outcomes)
    assert "step 6 of replica 0" in str(outcomes[0].fault)
    assert np.isfinite(outcomes[0].parameters.flat).all()


def test_a_loss_that_is_not_finite_at_the_beginning_is_told():
    class Broken(CutDigits):
        def held_out(self):
            for batch in super().held_out():
                batch.x_in[0] = np.nan
                yield batch

    outcomes, heard, _ = train(Broken())
    assert outcomes[0].failed and "the loss is nan on the held-out examples after 0 steps" in str(outcomes[0].fault)
    whole = Broken().model()
    assert outcomes[0].parameters.flat.size == whole.layout.size and not heard.evaluations


@pytest.mark.parametrize("dies", [0, 1])
def test_a_partition_that_is_killed_is_named(dies):
    """In mid-step: its peers wait for what crosses, or for the word of their head."""
    rank = 2 + dies
    with pytest.raises(DeadlineExpired, match=rf"partition {dies} of the replica \(rank {rank}\)|replica 0 \(rank 2\)"):
        train(CutDigits(), stop=Stop(epochs=100), timeout=5.0, deaths={rank: 0.05}, flops=1e8)


def test_it_stops_when_time_is_up():
    outcomes, heard, cluster = train(
        CutDigits(), replicas=2, stop=Stop(seconds=0.5), settings=Downpour(warmstart=1_000_000), flops=1e8
    )
    assert not outcomes[0].failed and 0.5 <= cluster.now < 0.7
    assert heard.evaluations[-1].examples > 0 and math.isfinite(heard.evaluations[-1].loss)


@pytest.mark.parametrize(("lean", "fetch_wire"), [(False, "bfloat16"), (True, "native")])
def test_parameters_stored_in_bfloat16_learn_from_masters_that_are_not(lean, fetch_wire):
    outcomes, heard, _ = train(
        CutDigits(batch=32, dtype="bfloat16"),
        Adagrad(rate=0.05),
        replicas=2,
        settings=Downpour(lean=lean, local_rate=0) if lean else Downpour(n_push=2),
        server=Server(fetch_wire=fetch_wire),
        stop=Stop(epochs=8),
        flops=1e8,
    )
    assert outcomes[0].parameters.flat.dtype == np.float32
    assert heard.evaluations[-1].accuracy > 0.9
