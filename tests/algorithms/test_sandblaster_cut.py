"""Sandblaster over replicas of several ranks, in virtual time: the same course as in one process."""

import numpy as np
import pytest
from algorithms.descent import Descent
from algorithms.digits import Digits, Heard

from distbelief.algorithms.roles import Roles
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.sandblaster.training import train, train_alone
from distbelief.algorithms.settings import Evaluate
from distbelief.comm.endpoint import DeadlineExpired
from distbelief.comm.sim import Cluster
from distbelief.launch.roles import assign
from distbelief.nn import Dense
from distbelief.optim import LBFGS, StopRules
from distbelief.partition import Cut


class Cuttable(Digits):
    """The digits, with test examples: the held-out ones."""

    def cut(self, partitions: int) -> Cut:
        layers = [Dense("dense0", 64, self._hidden, "relu"), Dense("dense1", self._hidden, 10)]
        return Cut(layers, partitions, max(self._batch, 100), self._dtype)

    def test_examples(self):
        return self.held_out_examples()


PROBLEM = Cuttable(50, np.float64)
SETTINGS = Sandblaster(portion=100, ship_every=2, method=Descent())


def simulated(roles: Roles, settings=SETTINGS, kills=(), timeout=100.0, problem=PROBLEM, **cluster):
    heard = Heard()
    made = Cluster(1 + max(rank for ranks in [*roles.ranks, roles.shards] for rank in ranks), time_limit=1e4, **cluster)
    for rank, at in kills:
        made.kill(rank, at)
    outcomes = made.run(lambda endpoint: train(endpoint, roles, problem, settings, Evaluate(), heard, timeout))
    return outcomes, heard


@pytest.fixture(scope="module")
def truth():
    heard = Heard()
    return train_alone(PROBLEM, SETTINGS, Evaluate(), heard), heard


def expect_same(outcome, heard, truth) -> None:
    """Every loss and gradient norm on the way, and the parameters at the end: those of one process."""
    alone, there = truth
    np.testing.assert_allclose(outcome.parameters.flat, alone.parameters.flat, rtol=0, atol=1e-10)
    for here, other in zip(heard.batch_evaluations, there.batch_evaluations, strict=True):
        assert here.loss == pytest.approx(other.loss, rel=1e-12)
        assert here.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-11)
        assert sum(here.portions) == 15
    assert outcome.evaluation.loss == pytest.approx(alone.evaluation.loss, rel=1e-12)
    assert outcome.evaluation.accuracy == alone.evaluation.accuracy


@pytest.mark.parametrize("partitions", [2, 3])
@pytest.mark.parametrize(
    ("shards", "place", "coordinator"), [(1, "apart", "beside"), (3, "apart", "apart"), (4, "beside", "beside")]
)
def test_partitions_and_shards_change_nothing_but_rounding(truth, partitions, shards, place, coordinator):
    ranks = 2 * partitions + (coordinator == "apart") + shards * (place == "apart")
    roles = assign(ranks, shards, place, coordinator, partitions)
    assert len(roles.replicas) == 2
    outcomes, heard = simulated(roles, flops=1e9, jitter=0.2)
    assert not any(each.failed or each.rank_missing for each in outcomes)
    expect_same(outcomes[0], heard, truth)
    assert outcomes[0].test_score == (pytest.approx(truth[0].evaluation.loss), truth[0].evaluation.accuracy)
    # Fetched once for each evaluation and score by each replica, whole: by intervals of its partitions.
    assert heard.batch_evaluations[-1].bytes_fetched <= 8 * truth[0].parameters.flat.size * 2 * (
        len(heard.batch_evaluations) + 1
    )


def test_one_replica_of_all_ranks(truth):
    """The coordinator and all shards are beside its partitions: each rank waits for the others, and serves them."""
    outcomes, heard = simulated(assign(4, 4, "beside", partitions=4), flops=1e9)
    expect_same(outcomes[0], heard, truth)


def test_lbfgs():
    settings = Sandblaster(portion=60, ship_every=3, method=LBFGS(history=6), stop=StopRules(evaluations=20))
    alone, there = train_alone(PROBLEM, settings, Evaluate(), heard := Heard()), heard
    outcomes, heard = simulated(assign(5, 1, partitions=2), settings, flops=1e9)
    for here, other in zip(heard.batch_evaluations, there.batch_evaluations, strict=True):
        assert here.loss == pytest.approx(other.loss, rel=1e-8)
    assert outcomes[0].evaluation.accuracy == alone.evaluation.accuracy


def test_partitions_that_hold_bfloat16():
    """Each has its parameters and nothing else in half the bytes: the course is that of float32, but for that."""
    outcomes, heard = simulated(assign(5, 1, partitions=2), problem=Cuttable(50, "bfloat16"), flops=1e9)
    _, there = train_alone(Cuttable(50), SETTINGS, Evaluate(), exact := Heard()), exact
    losses, truth = ([each.loss for each in heard.batch_evaluations] for heard in (heard, there))
    assert not outcomes[0].failed
    np.testing.assert_allclose(losses, truth[: len(losses)], rtol=0.02)
    assert losses != truth


def schedule(seed: int) -> dict:
    """Replicas of 2 or 3 ranks, slow links or fast ones, and deaths of any of their ranks but those of the last."""
    random = np.random.default_rng(seed)
    partitions, shards, replicas = (int(random.integers(*bounds)) for bounds in ((2, 4), (1, 4), (2, 4)))
    roles = assign(shards + partitions * replicas, shards, partitions=partitions)
    mortal = [rank for ranks in roles.ranks[:-1] for rank in ranks]
    victims = random.permutation(mortal)[: random.integers(0, 3)]
    return {
        "roles": roles,
        "settings": Sandblaster(
            portion=100,
            ship_every=int(random.integers(1, 4)),
            shipments=int(random.integers(1, 4)),
            backup=bool(random.random() < 0.7),
            method=Descent(iterations=3),
        ),
        "kills": [(int(victim), float(random.uniform(0, 0.1))) for victim in victims],
        "timeout": 4.0,
        "flops": 1e8,
        "jitter": 0.5,
        "latency": float(10 ** random.uniform(-6, -4)),
        "seed": seed,
    }


def test_whichever_rank_dies_the_course_is_the_same():
    """At any moment: in the middle of a minibatch, between the parts of a shipment, before the first word."""
    settings = Sandblaster(portion=100, ship_every=2, method=Descent(iterations=3))
    alone = train_alone(PROBLEM, settings, Evaluate(), heard := Heard()), heard
    given_up = missing = 0
    for seed in range(12):
        case = schedule(seed)
        outcomes, heard = simulated(**case)
        expect_same(outcomes[0], heard, alone)
        given_up += sum(each.given_up for each in heard.batch_evaluations)
        missing += outcomes[0].rank_missing
        if any(at < outcomes[0].evaluation.time for _, at in case["kills"]):
            assert outcomes[0].rank_missing, seed
    assert given_up > 5 and missing > 5


def test_when_no_replica_is_whole_the_coordinator_says_so():
    roles = assign(5, 1, partitions=2)
    with pytest.raises(DeadlineExpired, match=r"rank 0 waited 4.* s for any of the replicas on ranks \[1, 3\]"):
        simulated(roles, kills=[(2, 0.2), (4, 0.3)], timeout=4.0, flops=1e8)


class Spoilt(Cuttable):
    """Once, the gradient of one partition has an infinity that no loss tells of."""

    calls = 0

    def cut(self, partitions: int):
        made = super().cut(partitions)
        model = made.model

        def spoilt(peers):
            network = model(peers)
            gradient = network.gradient

            def broken(parameters, batch, into):
                loss = gradient(parameters, batch, into)
                if peers.partition == 1:
                    self.calls += 1
                    if self.calls == 70:
                        into.flat[-1] = np.inf
                return loss

            network.gradient = broken
            return network

        made.model = spoilt
        return made


def test_a_gradient_that_is_not_finite_on_one_partition_is_told_by_all():
    problem = Spoilt(50, np.float64)
    _, heard = simulated(assign(5, 1, partitions=2), problem=problem, flops=1e9)
    losses = [each.loss for each in heard.batch_evaluations]
    assert sum(np.isnan(losses)) == 1 and losses[-1] < losses[0]
