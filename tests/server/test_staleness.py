"""What is done about staleness, and how numbers travel: each by its formula, on a shard with one or two clients."""

import numpy as np
import pytest
from server.small_cluster import TIMEOUT, fetch, run

from distbelief.comm.endpoint import DeadlineExpired
from distbelief.comm.sim import Cluster
from distbelief.kernels import narrow, widen
from distbelief.optim import Adagrad, Constant, Cosine, FixedRate, Inverse, Momentum, Step, Trapezoid
from distbelief.server import Bounded, Compensated, Interval, Scaled, Server, Shard
from distbelief.server.messages import HEADER, RECORD


def _three_late_pushes(client, endpoint):
    """Pushes of ones with staleness 0, 1 and 2: all from the parameters of one fetch."""
    here = np.zeros(4)
    counts = fetch(client, here)
    for _ in range(3):
        client.wait_push(client.push(np.ones(4), counts))


def _parameters_after(program, settings, rule=None, start=0.0, pushes=3):
    rule = rule or FixedRate(rate=0.5)
    parameters, _, _ = run(
        program, values=np.full(4, start), rule=rule, shards=1, clients=1, pushes=pushes, settings=settings
    )
    return parameters


def test_late_gradients_are_applied_as_they_are():
    np.testing.assert_allclose(_parameters_after(_three_late_pushes, Server()), -0.5 * 3)


def test_scaled_divides_the_rate_by_the_staleness():
    after = _parameters_after(_three_late_pushes, Server(staleness=Scaled()))
    np.testing.assert_allclose(after, -0.5 * (1 + 1 + 1 / 2))


def test_compensated_corrects_by_how_far_the_parameters_have_moved():
    after = _parameters_after(_three_late_pushes, Server(staleness=Compensated(strength=0.3)), start=10.0)
    now = 10.0
    for _ in range(3):
        now -= 0.5 * (1 + 0.3 * (now - 10.0))
    np.testing.assert_allclose(after, now)


def test_compensated_corrects_from_where_the_gradient_was_computed():
    """That is not what has been fetched last: with overlap, a step computes while the next fetch is under way."""

    def program(client, endpoint):
        here = np.zeros(4)
        first = fetch(client, here)
        client.wait_push(client.push(np.ones(4), first))
        second = fetch(client, here)
        client.wait_push(client.push(np.ones(4), first))
        client.wait_push(client.push(np.ones(4), second))

    after = _parameters_after(program, Server(staleness=Compensated(strength=0.3)), start=10.0)
    one = 10.0 - 0.5
    two = one - 0.5 * (1 + 0.3 * (one - 10.0))
    np.testing.assert_allclose(after, two - 0.5 * (1 + 0.3 * (two - one)))


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), [1, 1, 1]),
        (Step(every=2, by=0.5), [1, 1, 0.5]),
        (Inverse(half=1), [1, 1 / 2, 1 / 3]),
        (Cosine(updates=2), [1, 0.5, 0]),
        (Trapezoid(updates=3, rise=2, fall=3), [0.5, 2 / 3, 1 / 3]),
        (Trapezoid(updates=2, rise=4), [0.25, 0.5, 0]),
    ],
)
def test_schedules_follow_the_shards_updates(schedule, factors):
    np.testing.assert_allclose(
        _parameters_after(_three_late_pushes, Server(schedule=schedule)), -0.5 * sum(factors), atol=1e-15
    )


@pytest.mark.parametrize("partitions", [1, 2])
def test_the_first_piece_of_a_push_settles_the_factor_of_all_and_the_staleness(partitions):
    """Between the pieces of one push come three of another replica; pieces may come from two partitions of one."""
    settings, others = Server(staleness=Scaled(), schedule=Inverse(half=1)), 2 * partitions

    def program(endpoint):
        window = endpoint.window(Shard.window_bytes(Interval(0, 6), np.float64, settings, others))
        shard = Shard(Interval(0, 6), np.zeros(6), FixedRate(rate=1.0), window, settings, [0] * others, partitions)

        def push(replica, sequence, start, values, last):
            client = partitions * replica + (start // 3 if partitions == 2 else 0)
            last = last or (partitions == 2 and start == 0)  # of its client's
            shard.apply(values, 0, client, sequence=sequence, start=start, last=last)

        push(1, 0, 0, np.ones(3), False)
        push(1, 0, 3, np.ones(3), True)
        shard.parameters[:] = 0
        push(0, 0, 0, np.ones(3), False)  # one update late, at a schedule's factor of 1/2
        for sequence in (1, 2, 3):
            push(1, sequence, 0, np.zeros(3), False)
            push(1, sequence, 3, np.zeros(3), True)
        assert shard.count == 4
        push(0, 0, 3, np.ones(3), True)
        told = window.local[: RECORD.itemsize].view(RECORD)[0].copy()
        return shard.parameters.copy(), told

    ((parameters, told),) = Cluster(1).run(program)
    np.testing.assert_array_equal(parameters, -0.5)
    assert (told["count"], told["staleness_sum"], told["staleness_max"]) == (5, 0 + 1 + 1 + 2 + 3, 3)
    assert told["staleness_histogram"][:5].tolist() == [1, 2, 1, 1, 0]


def test_momentum_on_the_shard():
    after = _parameters_after(_three_late_pushes, Server(), rule=Momentum(rate=0.5, decay=0.9))
    np.testing.assert_allclose(after, -0.5 * (1 + 1.9 + (1 + 0.9 * 1.9)))


def test_a_replica_too_far_ahead_waits_for_the_slowest():
    """B takes a second for each step; A, with a bound of 2 steps, is never more than 2 ahead of what B has pushed."""
    leads = []

    def program(client, endpoint):
        other = endpoint.rank == 2
        counts = fetch(client, np.zeros(4))
        for clock in range(6):
            client.wait_for_the_slowest(clock, lead=2)
            if other:
                endpoint.charge(flops=0.1)
                pushed[0] = clock + 1
            else:
                leads.append(clock - pushed[0])
            client.wait_push(client.push(np.ones(4), counts, clock + 1))
        client.leave()

    pushed = [0]
    settings = Server(staleness=Bounded(steps=2))
    run(
        program,
        values=np.zeros(4),
        rule=FixedRate(rate=0.1),
        shards=1,
        clients=2,
        pushes=12,
        settings=settings,
        flops=1,
    )
    assert max(leads) == 2, leads
    assert leads[-1] >= 1


def test_nobody_waits_for_a_replica_that_is_through():
    def program(client, endpoint):
        if endpoint.rank == 1:
            counts = fetch(client, np.zeros(4))
            client.wait_push(client.push(np.ones(4), counts, 3))
            client.wait_for_the_slowest(3, lead=2)  # the other is at 0 until it leaves
            assert endpoint.clock() >= 0.5
            client.wait_push(client.push(np.ones(4), counts, 4))
        else:
            endpoint.charge(flops=0.5)
        client.leave()

    run(program, values=np.zeros(4), rule=FixedRate(rate=0.1), shards=1, clients=2, pushes=2, flops=1)


def test_the_wait_for_the_slowest_has_a_deadline():
    def program(client, endpoint):
        if endpoint.rank == 1:
            client.wait_for_the_slowest(9, lead=2)
        else:
            endpoint.wait_message(10 * TIMEOUT, tag=77)

    with pytest.raises(DeadlineExpired, match="rank 1 waited 1 s for the slowest replica, more than 2 steps behind"):
        run(program, values=np.zeros(4), rule=FixedRate(rate=0.1), shards=1, clients=2, pushes=1)


@pytest.mark.parametrize("rule", [FixedRate(rate=0.1), Adagrad(rate=0.1), Momentum(rate=0.1)])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_bfloat16_fetch_is_the_parameters_rounded(rule, shards):
    values = np.random.default_rng(0).standard_normal(50).astype(np.float32)

    def program(client, endpoint):
        here = np.zeros(50, np.float32)
        counts = fetch(client, here)
        first = here.copy()
        client.wait_push(client.push(np.linspace(-1, 1, 50, dtype=np.float32), counts))
        fetch(client, here)
        return first, here, client.bytes_fetched

    parameters, records, ((first, here, nbytes),) = run(
        program,
        values=values,
        rule=rule,
        shards=shards,
        clients=1,
        pushes=1,
        settings=Server(fetch_wire="bfloat16"),
    )
    np.testing.assert_array_equal(first, _rounded(values))
    np.testing.assert_array_equal(here, _rounded(parameters))
    assert nbytes == 2 * (50 * 2 + shards * records[0].nbytes)


def test_a_bfloat16_push_carries_its_rounding_error_over():
    """100 pushes of 1.001: each alone would arrive as 1, together they arrive as 100.1."""

    def program(client, endpoint):
        counts = fetch(client, np.zeros(4, np.float32))
        for _ in range(100):
            client.wait_push(client.push(np.full(4, 1.001, np.float32), counts))
        return client.bytes_pushed

    parameters, _, (nbytes,) = run(
        program,
        values=np.zeros(4, np.float32),
        rule=FixedRate(rate=1.0),
        shards=1,
        clients=1,
        pushes=100,
        settings=Server(push_wire="bfloat16"),
    )
    np.testing.assert_allclose(parameters, -100.1, atol=2**-7)
    assert nbytes == 100 * (4 * 2 + HEADER.itemsize)


def _rounded(values):
    bits, out = np.empty(values.size, np.uint16), np.empty_like(values)
    narrow(values, bits)
    widen(bits, out)
    return out
