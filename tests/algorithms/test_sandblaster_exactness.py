"""The gradient on the shards is the serial one, whatever happens to replicas: hundreds of schedules in virtual time."""

import io

import numpy as np
import pytest
from algorithms.sandblaster_cluster import SHIFT, LeastSquares, Table, beginning, run, serial

from distbelief.algorithms.sandblaster.settings import Sharing
from distbelief.comm.endpoint import DeadlineExpired

FLOPS = 1e7


class Stalling(LeastSquares):
    """Takes 400 times as long for some minibatches: its replica is given up, and comes back."""

    def __init__(self, width: int, seed: int, share: float):
        super().__init__(width)
        self._random = np.random.default_rng(seed)
        self._share = share

    def flops(self, examples: int) -> float:
        return super().flops(examples) * (400 if self._random.random() < self._share else 1)


def schedule(seed: int, stalls: float = 0.0) -> dict:
    """A cluster, its settings and its disasters, all by chance: deaths, or so many stalls. One replica lives."""
    random = np.random.default_rng(seed)
    shards, replicas = int(random.integers(1, 5)), int(random.integers(2, 7))
    victims = (
        random.permutation(replicas)[: random.integers(0, replicas)] if random.random() < 0.7 and not stalls else []
    )
    # Sums of more than 512 numbers are no longer sent at once, but when the shard is ready: in the middle of that, too,
    # a replica may die.
    width = int(random.choice([8, 60, 2500]))
    return {
        "shards": shards,
        "replicas": replicas,
        "sharing": Sharing(
            portion=int(random.integers(1, 10)),
            ship_every=int(random.integers(1, 6)),
            shipments=int(random.integers(1, 5)),
            backup=bool(random.random() < 0.8),
        ),
        "table": Table(int(random.integers(10, 36)), width, int(random.integers(2, 6)), seed),
        "model": Stalling(width, seed, stalls),
        "kills": {int(victim): float(random.uniform(0, 0.02)) for victim in victims},
        "speeds": {
            shards + replica: float(10 ** random.uniform(-0.5 if stalls else -1.2, 0)) for replica in range(replicas)
        },
        "latency": float(10 ** random.uniform(-6, -3)),
        "bandwidth": float(10 ** random.uniform(7, 10)),
        "jitter": float(random.choice([0, 0.3, 1.0])),
        "apart": bool(random.random() < 0.3),
        "flops": FLOPS,
        "seed": seed,
        "timeout": 3.0 if stalls else 2.0,
        "time_limit": 1e3,
    }


@pytest.mark.parametrize("first", range(0, 320, 40))
def test_in_any_schedule_the_gradient_is_the_serial_one(first):
    given_up, backups_won = check([schedule(seed) for seed in range(first, first + 40)])
    assert given_up > 5 and backups_won > 50


def test_so_it_is_when_replicas_that_were_given_up_come_back():
    given_up, _ = check([schedule(seed, stalls=0.15) for seed in range(40)])
    assert given_up > 20


def check(cases: list[dict]) -> tuple[int, int]:
    """How often a replica was given up, and how many backups won."""
    given_up = backups_won = 0
    for case in cases:
        done = run(**case)
        table = case["table"]
        w = beginning(table.a.shape[1])
        for loss, gradient, accounts in zip(done.losses, done.gradients, done.accounts, strict=True):
            true_loss, true_gradient = serial(case["model"], table, w)
            assert loss == pytest.approx(true_loss, rel=1e-12), case["seed"]
            error = np.linalg.norm(gradient - true_gradient) / np.linalg.norm(true_gradient)
            assert error < 1e-12, (case["seed"], error)
            assert sum(accounts.portions) == -(-len(table) // case["sharing"].portion)
            given_up += accounts.given_up
            backups_won += accounts.backups_won
            w = w * (1 + SHIFT)
        z = table.a @ (w / (1 + SHIFT))
        assert done.scores[0] == (pytest.approx(done.losses[-1], rel=1e-12), np.mean(z > table.b)), case["seed"]
    return given_up, backups_won


def test_shards_and_replicas_change_nothing_but_rounding():
    table = Table(60, 50, 4)
    first = run(shards=1, replicas=1, sharing=Sharing(portion=60), table=table)
    for shards, replicas, portion in ((1, 5, 7), (4, 2, 1), (3, 3, 12)):
        done = run(shards=shards, replicas=replicas, sharing=Sharing(portion=portion), table=table)
        np.testing.assert_allclose(done.gradients, first.gradients, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(done.losses, first.losses, rtol=1e-13)


def test_the_same_seed_gives_the_same_log_byte_for_byte():
    logs = [io.StringIO() for _ in range(3)]
    for log, seed in zip(logs, (5, 5, 6), strict=True):
        run(
            shards=2,
            replicas=3,
            sharing=Sharing(portion=4, ship_every=2),
            table=Table(60, 20, 2),
            kills={1: 0.004},
            jitter=0.5,
            flops=FLOPS,
            timeout=1.0,
            seed=seed,
            log=log,
        )
    assert logs[0].getvalue() == logs[1].getvalue() != logs[2].getvalue()


def test_a_replica_that_dies_before_the_first_word_is_done_without():
    done = run(
        shards=1,
        replicas=3,
        sharing=Sharing(portion=5),
        table=Table(60, 8, 5),
        kills={0: 1e-5, 2: 1e-5},
        flops=FLOPS,
        timeout=1.0,
    )
    assert [accounts.portions for accounts in done.accounts] == [[0, 12, 0]] * 2


class Broken(LeastSquares):
    """Its gradient has an infinity for one minibatch, the first time."""

    calls = 0

    def gradient(self, parameters, batch, gradient) -> float:
        loss = super().gradient(parameters, batch, gradient)
        self.calls += 1
        if self.calls == 7:
            gradient.flat[-1] = np.inf
        return loss


def test_a_gradient_that_is_not_finite_is_told_by_the_loss_and_leaves_nothing_behind():
    table = Table(80, 12, 2)
    done = run(shards=2, replicas=3, sharing=Sharing(portion=4, ship_every=2), table=table, model=Broken(12))
    assert np.isnan(done.losses[0])
    loss, gradient = serial(LeastSquares(12), table, beginning(12) * (1 + SHIFT))
    assert done.losses[1] == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(done.gradients[1], gradient, rtol=1e-12, atol=1e-13)


CASE = dict(table=Table(400, 8, 5), sharing=Sharing(portion=10), flops=1e5, timeout=4.0, time_limit=100.0)


def test_when_no_replica_is_left_the_coordinator_says_so():
    with pytest.raises(DeadlineExpired, match=r"rank 0 waited 4.* s for any of the replicas on ranks \[1, 2\]"):
        run(shards=1, replicas=2, kills={0: 0.5, 1: 0.7}, **CASE)


def test_a_shard_that_dies_is_named():
    with pytest.raises(DeadlineExpired, match=r"waited 4.* s for .*the shards on ranks \[.*1.*\]"):
        run(shards=2, replicas=2, kill_rank=(1, 0.3), **CASE)


def test_a_coordinator_that_dies_is_named():
    with pytest.raises(DeadlineExpired, match=r"waited 4 s for the coordinator on rank 4"):
        run(shards=2, replicas=2, apart=True, kill_rank=(4, 0.3), **CASE)
