"""Downpour's roles on simulated clusters, against serial training as the truth."""

import io

import numpy as np
import pytest
from algorithms.digits import Digits, train_in_simulator, train_serially

from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.nn import Dense, Network
from distbelief.optim import Adagrad, FixedRate
from distbelief.server import Bounded, Compensated, Scaled, Server
from distbelief.server.messages import HEADER, PUSH, RECORD


@pytest.mark.parametrize("n_fetch", [1, 2, 5])
@pytest.mark.parametrize("n_push", [1, 3])
@pytest.mark.parametrize("latency", [1e-6, 5e-3])
@pytest.mark.parametrize("overlap", [True, False])
def test_one_replica_computes_what_serial_sgd_does(n_fetch, n_push, latency, overlap):
    """However seldom it fetches and pushes, and however late: its own steps are never lost."""
    problem = Digits(dtype=np.float64)
    rule = FixedRate(rate=0.1)
    truth, _ = train_serially(problem, rule)
    outcomes, _, _ = train_in_simulator(
        problem, rule, ranks=2, settings=Downpour(n_fetch=n_fetch, n_push=n_push, overlap=overlap), latency=latency
    )
    np.testing.assert_allclose(outcomes[0].parameters.flat, truth.parameters.flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_do_not_change_what_one_replica_computes(shards):
    problem = Digits(dtype=np.float64)
    rule = FixedRate(rate=0.1)
    truth, _ = train_serially(problem, rule)
    outcomes, _, _ = train_in_simulator(problem, rule, ranks=shards + 1, shards=shards, jitter=0.3)
    np.testing.assert_allclose(outcomes[0].parameters.flat, truth.parameters.flat, rtol=0, atol=1e-12)


def test_one_replica_with_adagrad_computes_what_serial_adagrad_does():
    """With no local step (it knows no Adagrad state) and a fetch that waits for nothing: serial, one update behind."""
    problem = Digits(dtype=np.float64)
    rule = Adagrad(rate=0.05)
    truth, _ = train_serially(problem, rule, Stop(epochs=4))
    outcomes, _, _ = train_in_simulator(problem, rule, ranks=2, stop=Stop(epochs=4), latency=1e-9, bandwidth=1e15)
    assert abs(outcomes[0].evaluation.accuracy - truth.evaluation.accuracy) < 0.015


def test_three_replicas_with_adagrad_are_as_accurate_as_serial():
    """After the same number of examples, within 1.5 points."""
    stop, rule = Stop(epochs=20), Adagrad(rate=0.05)
    accuracies = []
    for seed in range(3):
        problem = Digits(seed=seed)
        truth, _ = train_serially(problem, rule, stop)
        outcomes, _, _ = train_in_simulator(
            problem, rule, ranks=4, settings=Downpour(warmstart=20), stop=stop, flops=1e8, jitter=0.2, seed=seed
        )
        assert outcomes[0].evaluation.examples == truth.evaluation.examples == 20 * problem.training_examples
        accuracies.append((truth.evaluation.accuracy, outcomes[0].evaluation.accuracy))
    serial, parallel = np.mean(accuracies, axis=0)
    assert serial > 0.93
    assert parallel > serial - 0.015, accuracies


def _fifty(seed: int, epochs: int) -> tuple[str, list]:
    log = io.StringIO()
    _, heard, _ = train_in_simulator(
        Digits(batch=4, seed=1),
        Adagrad(rate=0.03),
        ranks=55,
        shards=5,
        settings=Downpour(n_fetch=2, n_push=2, warmstart=40),
        stop=Stop(epochs=epochs),
        evaluate=Evaluate(every_examples=5000),
        flops=1e8,
        jitter=0.3,
        seed=seed,
        log=log,
    )
    return log.getvalue(), heard.evaluations


def test_fifty_replicas_and_five_shards_train():
    _, evaluations = _fifty(seed=7, epochs=16)
    last = evaluations[-1]
    assert last.accuracy > 0.85
    assert len(last.staleness) == 5 and min(last.staleness) > 5
    assert len(set(last.updates)) == 1, "each shard applies every push"
    assert len(evaluations) >= 4


def test_the_same_seed_gives_the_same_log_byte_for_byte():
    log, evaluations = _fifty(seed=7, epochs=2)
    again, same_evaluations = _fifty(seed=7, epochs=2)
    assert log == again
    assert evaluations == same_evaluations
    other, _ = _fifty(seed=8, epochs=2)
    assert log != other


def test_one_replica_alone_is_stale_by_its_own_unfetched_pushes():
    """n_fetch = 3, n_push = 1 with a server that answers at once: pushes are 0, 1, 2, 0, 1, 2, ... updates late."""
    outcomes, heard, _ = train_in_simulator(
        Digits(batch=50), FixedRate(rate=0.01), ranks=2, settings=Downpour(n_fetch=3), latency=1e-9, bandwidth=1e15
    )
    last = heard.evaluations[-1]
    assert last.updates == [30]
    assert last.staleness_max == [3]  # a fetch starts while the push before it is on its way
    assert last.staleness[0] == pytest.approx(1.9, abs=0.2)


def test_bytes_are_what_n_fetch_and_n_push_imply():
    problem = Digits(batch=50)
    size = problem.model().layout.size
    outcomes, heard, _ = train_in_simulator(
        problem, FixedRate(rate=0.01), ranks=3, settings=Downpour(n_fetch=4, n_push=2)
    )
    # Two replicas of 15 steps: fetches at steps 0, 4, 8, 12; pushes after 2, 4, ..., 14, and the rest of 1 step.
    last = heard.evaluations[-1]
    assert last.step == 30
    assert last.bytes_fetched == 2 * 4 * (4 * size + RECORD.itemsize)
    assert last.bytes_pushed == 2 * 8 * (4 * size + HEADER.itemsize)


def test_warmstart_lets_replica_0_train_alone():
    """The first push of another replica comes after replica 0 has taken its steps."""
    log = io.StringIO()
    _, heard, _ = train_in_simulator(
        Digits(), FixedRate(rate=0.1), ranks=4, settings=Downpour(warmstart=20), stop=Stop(epochs=2), log=log
    )
    assert heard.evaluations[-1].examples == 2 * Digits().training_examples
    # Columns of the log: time, rank, kind, peer, tag, ...
    lines = [line.split() for line in log.getvalue().splitlines()]
    sources = [words[1] for words in lines if words[2] == "send" and words[4] == str(PUSH)]
    assert sources[:20] == ["1"] * 20
    assert {"2", "3"} <= set(sources[20:60])


def test_a_warmstart_longer_than_the_training_of_replica_0_ends_with_it():
    _, heard, _ = train_in_simulator(
        Digits(), FixedRate(rate=0.1), ranks=3, settings=Downpour(warmstart=1_000_000), timeout=60.0, time_limit=100.0
    )
    assert heard.evaluations[-1].examples == Digits().training_examples


def test_it_stops_after_seconds_of_virtual_time():
    stop = Stop(seconds=0.5)
    outcomes, heard, cluster = train_in_simulator(
        Digits(), FixedRate(rate=0.05), ranks=4, stop=stop, flops=1e8, evaluate=Evaluate(every_examples=5000)
    )
    assert outcomes[0].evaluation.examples > 5000
    assert 0.5 <= cluster.now < 0.7
    assert len({tuple(e.updates) for e in heard.evaluations}) == len(heard.evaluations)


def test_a_straggler_holds_nobody_back():
    """One of four replicas ten times slower: in the same time the others do as much as ever."""
    settings = dict(ranks=5, stop=Stop(seconds=0.5), flops=1e8)
    even, _, _ = train_in_simulator(Digits(), FixedRate(rate=0.05), **settings)
    slowed, _, _ = train_in_simulator(Digits(), FixedRate(rate=0.05), speeds={4: 0.1}, **settings)
    share = slowed[0].evaluation.examples / even[0].evaluation.examples
    assert share == pytest.approx((3 + 0.1) / 4, abs=0.03)


def test_a_bounded_lead_holds_fast_replicas_back():
    """One of three replicas five times slower: with a bound of 4 steps all go at its pace."""
    settings = dict(ranks=4, stop=Stop(seconds=0.5), flops=1e8, speeds={3: 0.2})
    _, free, _ = train_in_simulator(Digits(), FixedRate(rate=0.05), **settings)
    _, held, _ = train_in_simulator(
        Digits(), FixedRate(rate=0.05), server=Server(staleness=Bounded(steps=4)), **settings
    )
    fastest, slowest = (free.evaluations[-1].replica_examples_per_s[i] for i in (0, 2))
    assert fastest / slowest == pytest.approx(5, rel=0.1)
    fastest, slowest = (held.evaluations[-1].replica_examples_per_s[i] for i in (0, 2))
    assert fastest / slowest == pytest.approx(1, abs=0.2)  # four steps ahead of some forty
    assert held.evaluations[-1].seconds_fetching > 0.5


# A rate that is divided by a staleness of about ten is larger to begin with.
@pytest.mark.parametrize(
    ("staleness", "rule"),
    [
        (Scaled(), FixedRate(rate=0.5)),
        (Compensated(strength=0.04), Adagrad(rate=0.05)),
        (Bounded(steps=3), Adagrad(rate=0.05)),
    ],
)
def test_what_is_done_about_staleness_still_learns(staleness, rule):
    _, heard, _ = train_in_simulator(
        Digits(),
        rule,
        ranks=7,
        shards=2,
        server=Server(staleness=staleness),
        stop=Stop(epochs=12),
        flops=1e8,
        jitter=0.2,
    )
    assert heard.evaluations[-1].accuracy > 0.88
    last = heard.evaluations[-1]
    assert sum(last.staleness_histogram[0]) == last.updates[0]
    assert len(last.staleness_histogram[0]) == len(last.staleness_edges)


def test_bfloat16_on_the_wire_halves_the_bytes_and_learns_as_well():
    settings = dict(ranks=4, stop=Stop(epochs=12), flops=1e8, settings=Downpour(warmstart=20))
    _, native, _ = train_in_simulator(Digits(), Adagrad(rate=0.05), **settings)
    half = Server(fetch_wire="bfloat16", push_wire="bfloat16")
    _, rounded, _ = train_in_simulator(Digits(), Adagrad(rate=0.05), server=half, **settings)
    native, rounded = native.evaluations[-1], rounded.evaluations[-1]
    assert rounded.bytes_pushed < 0.52 * native.bytes_pushed
    assert rounded.bytes_fetched < 0.6 * native.bytes_fetched
    assert rounded.accuracy > native.accuracy - 0.015


class HeldDigits(Digits):
    """Replicas hold their parameters in bfloat16."""

    def replica_model(self):
        layers = [Dense("dense0", 64, self._hidden, "relu"), Dense("dense1", self._hidden, 10)]
        self.held = Network(layers, max(self._batch, 100), "bfloat16", held="bfloat16")
        return self.held


@pytest.mark.parametrize("n_fetch", [1, 5])
def test_replicas_that_hold_bfloat16_learn_as_well(n_fetch):
    settings = {"ranks": 4, "settings": Downpour(n_fetch=n_fetch, n_push=n_fetch), "stop": Stop(epochs=6)}
    problem, rule = HeldDigits(dtype="bfloat16"), Adagrad(rate=0.05)
    outcomes, _, _ = train_in_simulator(problem, rule, **settings)
    truth, _, _ = train_in_simulator(Digits(), rule, **settings)
    assert problem.held.held == np.uint16
    assert outcomes[0].parameters.flat.dtype == np.float32  # the masters
    assert truth[0].evaluation.accuracy > 0.9
    assert abs(outcomes[0].evaluation.accuracy - truth[0].evaluation.accuracy) <= 0.015
