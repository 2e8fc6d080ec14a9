"""Whole runs of Sandblaster on simulated clusters, against the same method in one process."""

import io

import numpy as np
import pytest
from algorithms.descent import Descent
from algorithms.digits import Digits, Heard

from distbelief.algorithms.roles import Roles
from distbelief.algorithms.sandblaster.settings import ChangingBatch, Sandblaster
from distbelief.algorithms.sandblaster.training import train, train_alone
from distbelief.algorithms.settings import Evaluate
from distbelief.comm.sim import Cluster
from distbelief.launch.roles import assign

SETTINGS = Sandblaster(portion=100, ship_every=2, method=Descent())


def alone(problem, settings=SETTINGS, evaluate=Evaluate()):
    heard = Heard()
    return train_alone(problem, settings, evaluate, heard), heard


def simulated(problem, roles: Roles, settings=SETTINGS, evaluate=Evaluate(), kills=(), timeout=100.0, **cluster):
    heard = Heard()
    ranks = 1 + max(roles.coordinator, *roles.shards, *roles.replicas)
    made = Cluster(ranks, time_limit=1e4, **cluster)
    for rank, at in kills:
        made.kill(rank, at)
    outcomes = made.run(lambda endpoint: train(endpoint, roles, problem, settings, evaluate, heard, timeout))
    return outcomes, heard, made


@pytest.fixture(scope="module")
def truth():
    return alone(Digits(dtype=np.float64))


@pytest.mark.parametrize(
    "roles",
    [
        assign(4, 1),
        assign(6, 2),
        assign(3, 3, place="beside"),
        assign(5, 2, place="beside", coordinator="apart"),
        assign(1 + 2 + 3, 2, coordinator="apart"),
    ],
)
def test_ranks_and_roles_change_nothing_but_rounding(truth, roles):
    outcome, heard = truth
    outcomes, same, _ = simulated(Digits(dtype=np.float64), roles, flops=1e9, jitter=0.2)
    assert not any(each.failed for each in outcomes)
    found = outcomes[roles.coordinator]
    np.testing.assert_allclose(found.parameters.flat, outcome.parameters.flat, rtol=0, atol=1e-10)
    assert len(same.batch_evaluations) == len(heard.batch_evaluations) > 5
    for here, there in zip(same.batch_evaluations, heard.batch_evaluations, strict=True):
        assert (here.loss, here.gradient_norm) == (pytest.approx(there.loss), pytest.approx(there.gradient_norm))
        assert (here.step_length, here.iteration, here.examples) == (there.step_length, there.iteration, there.examples)
        assert sum(here.portions) == 15
    assert found.evaluation.loss == pytest.approx(outcome.evaluation.loss)
    assert found.evaluation.accuracy == outcome.evaluation.accuracy
    assert found.evaluation == same.evaluations[-1]


def test_a_replica_that_dies_changes_nothing_but_rounding(truth):
    outcome, _ = truth
    dead = [(3, 0.02), (4, 0.3)]
    outcomes, heard, _ = simulated(Digits(dtype=np.float64), assign(6, 2), kills=dead, flops=1e8, timeout=4.0)
    np.testing.assert_allclose(outcomes[0].parameters.flat, outcome.parameters.flat, rtol=0, atol=1e-10)
    assert [each.portions[1] for each in heard.batch_evaluations][2:] == [0] * (len(heard.batch_evaluations) - 2)
    assert outcomes[3] is outcomes[4] is None


@pytest.mark.parametrize("every", [1, 2])
def test_a_batch_that_changes_is_the_same_everywhere(every):
    problem = Digits(dtype=np.float64)
    settings = Sandblaster(portion=50, method=Descent(), batch=ChangingBatch(fraction=0.4, overlap=0.5, every=every))
    outcome, heard = alone(problem, settings)
    outcomes, same, _ = simulated(problem, assign(4, 1), settings, flops=1e9)
    np.testing.assert_allclose(outcomes[0].parameters.flat, outcome.parameters.flat, rtol=0, atol=1e-10)
    # 12 of 30 portions, the last of which has 47 examples.
    assert [each.examples for each in same.batch_evaluations] == [each.examples for each in heard.batch_evaluations]
    assert {each.examples for each in heard.batch_evaluations} == ({600, 597} if every == 1 else {600})
    again = [each for each in heard.batch_evaluations if each.step_length == 0]
    assert len(again) == 1 + 5 // every


def test_it_evaluates_now_and_then_and_keeps_what_was_good():
    problem = Digits(dtype=np.float64)
    outcomes, heard, _ = simulated(problem, assign(4, 1), evaluate=Evaluate(every_examples=3000), flops=1e9)
    steps = [evaluation.step for evaluation in heard.evaluations]
    assert steps[0] == 0 and steps[-1] == 5 and len(steps) > 2
    assert heard.evaluations[-1].loss < heard.evaluations[0].loss
    model = problem.model()
    loss = sum(model.score(outcomes[0].parameters, batch)[0] for batch in problem.held_out()) / 300
    assert outcomes[0].evaluation.loss == pytest.approx(loss, rel=1e-12)


class Diverging(Digits):
    """Its model has no finite loss on held-out examples away from the beginning."""

    def model(self):
        network = super().model()
        score, beginning = network.score, []

        def bad(parameters, batch):
            beginning[:] = beginning or [parameters.flat.copy()]
            loss, right = score(parameters, batch)
            return (loss if np.array_equal(parameters.flat, beginning[0]) else np.inf), right

        network.score = bad
        return network


def test_a_loss_on_held_out_examples_that_is_not_finite_ends_it_with_the_good_parameters():
    outcomes, heard, _ = simulated(Diverging(), assign(4, 1), evaluate=Evaluate(every_examples=1), flops=1e9)
    assert [outcome.failed for outcome in outcomes] == [True] * 4
    assert str(outcomes[0].fault) == "the loss is nan on the held-out examples after 1 steps"
    problem = Digits()
    problem.model().initialise(beginning := outcomes[0].parameters.__class__(problem.model().layout), problem.seed)
    np.testing.assert_array_equal(outcomes[0].parameters.flat, beginning.flat)


def test_the_same_seed_gives_the_same_log_byte_for_byte():
    logs = [io.StringIO() for _ in range(2)]
    for log in logs:
        simulated(Digits(), assign(5, 2), jitter=0.3, flops=1e9, log=log)
    assert logs[0].getvalue() == logs[1].getvalue()
