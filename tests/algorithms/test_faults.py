"""Numbers that are not finite, and ranks that fall silent: who says what, and what is kept."""

import numpy as np
import pytest
from algorithms.digits import Digits, Heard, train_in_simulator, train_serially

from distbelief.algorithms import downpour
from distbelief.algorithms.evaluator import Evaluator
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.scoring import score
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.comm.endpoint import DeadlineExpired
from distbelief.comm.sim import Cluster
from distbelief.launch.roles import assign
from distbelief.nn import Network
from distbelief.optim import Adagrad, FixedRate


class Poisoned(Digits):
    """Digits whose model turns bad after some steps, on every rank that computes gradients."""

    def __init__(self, after: int, how: str):
        super().__init__()
        self._after, self._how = after, how

    def model(self) -> Network:
        network = super().model()
        network.gradient = self._poison(network.gradient)
        return network

    def _poison(self, gradient_of):
        steps = 0

        def gradient(parameters, batch, gradient):
            nonlocal steps
            steps += 1
            loss = gradient_of(parameters, batch, gradient)
            if steps > self._after and self._how == "gradient":
                gradient.flat[-1] = np.inf
            return float("nan") if steps > self._after and self._how == "loss" else loss

        return gradient


@pytest.mark.parametrize(("how", "words"), [("loss", "the loss is nan"), ("gradient", "NaN or infinity")])
def test_serial_training_ends_with_the_step_and_the_last_good_parameters(how, words):
    outcome, _ = train_serially(Poisoned(70, how), FixedRate(rate=0.1), evaluate=Evaluate(every_examples=480))
    assert outcome.failed
    assert words in str(outcome.fault) and "step 71 of replica 0" in str(outcome.fault)
    assert outcome.evaluation.examples == 960
    assert np.isfinite(outcome.parameters.flat).all()
    # They are those of that evaluation: training that meets no fault passes through them.
    _, healthy = train_serially(Digits(), FixedRate(rate=0.1), evaluate=Evaluate(every_examples=480))
    assert outcome.evaluation.loss == next(e.loss for e in healthy.evaluations if e.examples == 960)
    problem = Digits()
    assert outcome.evaluation.loss == score(problem.model(), outcome.parameters, problem.held_out())[0]


@pytest.mark.parametrize(("how", "words"), [("loss", "the loss is nan"), ("gradient", "NaN or infinity")])
def test_downpour_ends_all_ranks_and_keeps_good_parameters(how, words):
    outcomes, heard, _ = train_in_simulator(
        Poisoned(30, how), Adagrad(rate=0.02), ranks=5, shards=2, evaluate=Evaluate(every_examples=300), jitter=0.1
    )
    assert [outcome.failed for outcome in outcomes] == [True] * 5
    assert words in str(outcomes[0].fault) and "step 31 of replica" in str(outcomes[0].fault)
    assert outcomes[0].evaluation == heard.evaluations[-1]
    assert np.isfinite(outcomes[0].parameters.flat).all()


def test_a_fault_before_any_evaluation_leaves_the_initial_parameters():
    outcomes, _, _ = train_in_simulator(Poisoned(0, "loss"), Adagrad(rate=0.02), ranks=3)
    assert "step 1 of replica" in str(outcomes[0].fault)
    initial = outcomes[0].parameters.flat.copy()
    problem = Digits()
    problem.model().initialise(outcomes[0].parameters, problem.seed)
    np.testing.assert_array_equal(initial, outcomes[0].parameters.flat)


def test_parameters_that_diverge_are_not_kept():
    """A rate that throws the parameters to infinity: the shard has them, the outcome has the last finite ones."""
    outcomes, _, _ = train_in_simulator(Digits(), FixedRate(rate=1e30), ranks=3, evaluate=Evaluate(every_examples=64))
    assert outcomes[0].failed
    assert np.isfinite(outcomes[0].parameters.flat).all()


class Halting(Digits):
    """Digits whose replica 1 never comes back from its data."""

    def __init__(self, endpoints):
        super().__init__()
        self._endpoints = endpoints

    def batches(self, replica: int, replicas: int):
        batches = super().batches(replica, replicas)
        if replica == 1:
            batches.epoch = lambda number: (self._hang() for _ in range(1))
        return batches

    def _hang(self):
        self._endpoints[0].wait_message(1e9, tag=12345)


def test_the_coordinator_names_a_replica_that_falls_silent():
    def program(endpoint):
        problem = Halting([endpoint])
        downpour.train(
            endpoint,
            assign(4, 1),
            problem,
            FixedRate(rate=0.1),
            Downpour(),
            Stop(epochs=1),
            Evaluate(),
            _Silent(),
            20.0,
        )

    with pytest.raises(DeadlineExpired, match=r"rank 0 waited 3\d s for a report of replica 1 \(rank 2\)"):
        Cluster(4).run(program)


def test_a_rank_whose_coordinator_dies_says_so():
    def program(endpoint):
        downpour.train(
            endpoint,
            assign(4, 2),
            Digits(),
            FixedRate(rate=0.1),
            Downpour(warmstart=10**6),
            Stop(epochs=9),
            Evaluate(),
            _Silent(),
            20.0,
        )

    cluster = Cluster(4, flops=1e6)
    cluster.kill(0, at=0.05)
    with pytest.raises(DeadlineExpired, match=r"waited 20 s for"):
        cluster.run(program)


class _Silent:
    def progress(self, progress): ...

    def evaluated(self, evaluation): ...

    def warned(self, words): ...


def test_a_shard_that_dies_as_its_parameters_are_evaluated_is_named(monkeypatch):
    """The last evaluation: nobody else waits for the shard any more."""
    cluster, start = Cluster(4, time_limit=100.0, latency=1e-3), Evaluator.start

    def and_the_shard_dies(evaluator, seconds):
        if evaluator._ledger.all_through():
            cluster.kill(1, at=evaluator._endpoint.clock())
        return start(evaluator, seconds)

    monkeypatch.setattr(Evaluator, "start", and_the_shard_dies)
    roles, ends = Roles(0, [1], [2, 3]), (Stop(epochs=1), Evaluate())

    def role(endpoint):
        return downpour.train(endpoint, roles, Digits(), Adagrad(rate=0.05), Downpour(), *ends, Heard(), 5.0, None)

    with pytest.raises(DeadlineExpired, match="rank 0 waited 5 s for the shard on rank 1, to evaluate its parameters"):
        cluster.run(role)
