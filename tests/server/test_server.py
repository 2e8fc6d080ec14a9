"""The parameter server by itself: placement, staleness by its definition, the client's invariant."""

import numpy as np
import pytest

from distbelief.algorithms.loop import serve
from distbelief.comm.sim import Cluster
from distbelief.optim import Adagrad, FixedRate
from distbelief.server import Client, Interval, Placement, Service, Shard
from distbelief.server.messages import HEADER, PAYLOAD, PUSH, record

TIMEOUT = 1.0


@pytest.mark.parametrize(("size", "shards"), [(1, 1), (10, 3), (41, 7), (1000, 64), (5, 5)])
def test_intervals_cover_the_vector_and_are_balanced(size, shards):
    placement = Placement(size, shards)
    covered = [i for start, stop in placement.intervals for i in range(start, stop)]
    assert covered == list(range(size))
    sizes = [interval.size for interval in placement.intervals]
    assert max(sizes) - min(sizes) <= 1
    assert len(placement) == shards


@pytest.mark.parametrize(("size", "shards"), [(3, 4), (3, 0), (0, 1)])
def test_a_shard_without_parameters_is_refused(size, shards):
    with pytest.raises(ValueError, match=f"{shards} shards for {size} parameters"):
        Placement(size, shards)


class _Until:
    """The part that ends a shard's loop once so many pushes have been applied."""

    tags = ()

    def __init__(self, shard, pushes):
        self._shard, self._pushes = shard, pushes

    @property
    def finished(self):
        return self._shard.count >= self._pushes

    def work(self):
        return TIMEOUT


def _run(program, *, values, rule, shards, clients, pushes, **cluster):
    """`program(client, endpoint)` on each client rank; the shards' final parameters, their records, the results."""
    placement = Placement(values.size, shards)

    def role(endpoint):
        number = endpoint.rank if endpoint.rank < shards else None
        nbytes = 0 if number is None else Shard.window_bytes(placement.intervals[number], values.dtype)
        window = endpoint.window(nbytes)
        if number is None:
            endpoint.wait_all([endpoint.receive(np.zeros(1), s, 99) for s in range(shards)], TIMEOUT, "the shards")
            client = Client(endpoint, window, placement, list(range(shards)), values.dtype, TIMEOUT)
            result = program(client, endpoint)
            window.free()
            return result
        start, stop = placement.intervals[number]
        shard = Shard(placement.intervals[number], values[start:stop].copy(), rule, window)
        endpoint.wait_all([endpoint.send(np.zeros(1), shards + c, 99) for c in range(clients)], TIMEOUT, "the clients")
        serve(endpoint, [Service(endpoint, shard, TIMEOUT), _Until(shard, pushes)])
        result = shard.parameters.copy(), window.local[:24].view(np.int64).tolist()
        window.free()
        return result

    results = Cluster(shards + clients, **cluster).run(role)
    parameters = np.concatenate([result[0] for result in results[:shards]])
    return parameters, [result[1] for result in results[:shards]], results[shards:]


def _fetch(client, parameters, accrued=None, rate=0.0):
    fetch = client.fetch()
    client.wait_fetch(fetch)
    return client.install(fetch, parameters, accrued, rate)


@pytest.mark.parametrize("shards", [1, 3])
def test_fetch_brings_what_pushes_made(shards):
    values = np.arange(10, dtype=np.float32)
    gradients = [np.linspace(-1, 1, 10, dtype=np.float32), np.full(10, 0.5, np.float32)]

    def program(client, endpoint):
        here = np.zeros(10, np.float32)
        counts = _fetch(client, here)
        np.testing.assert_array_equal(here, values)
        assert counts.tolist() == [0] * shards
        for gradient in gradients:
            client.wait_push(client.push(gradient, counts))
        assert _fetch(client, here).tolist() == [2] * shards
        return here

    parameters, records, (here,) = _run(
        program, values=values, rule=Adagrad(rate=0.1), shards=shards, clients=1, pushes=2
    )
    expected, squares = values.copy(), np.zeros(10, np.float32)
    for gradient in gradients:
        squares += gradient**2
        expected -= 0.1 * gradient / np.sqrt(squares)
    np.testing.assert_allclose(parameters, expected, rtol=1e-6)
    np.testing.assert_array_equal(here, parameters)
    # count, sum and maximum of the staleness: the second push was computed from the first fetch.
    assert records == [[2, 1, 1]] * shards


def test_staleness_is_the_updates_between_fetch_and_push():
    """Two clients in a fixed order: A and B fetch, A pushes, B pushes (1 late), B pushes again (2 late)."""

    def program(client, endpoint):
        here = np.zeros(4)
        counts = _fetch(client, here)
        turn = np.zeros(1)
        if endpoint.rank == 1:
            client.wait_push(client.push(np.ones(4), counts))
            endpoint.wait_all([endpoint.send(turn, 2, 50)], TIMEOUT, "B")
        else:
            endpoint.wait_all([endpoint.receive(turn, 1, 50)], TIMEOUT, "A")
            client.wait_push(client.push(np.ones(4), counts))
            client.wait_push(client.push(np.ones(4), counts))

    _, records, _ = _run(
        program, values=np.zeros(4), rule=FixedRate(rate=1.0), shards=1, clients=2, pushes=3, latency=1e-3
    )
    assert records == [[3, 0 + 1 + 2, 2]]


def test_a_fetch_that_lacks_a_push_is_mended_by_it():
    """The client's invariant: the fetch overtakes the push, yet the replica keeps its own step."""

    def program(client, endpoint):
        here = np.zeros(4)
        counts = _fetch(client, here, rate=0.5)
        here -= 0.5  # the local step with a gradient of ones
        push = client.push(np.ones(4), counts)
        accrued = np.full(4, 2.0)  # a second step, not pushed yet
        here -= 0.5 * accrued
        counts = _fetch(client, here, accrued, rate=0.5)
        assert counts.tolist() == [0], "the push has not arrived yet"
        np.testing.assert_allclose(here, 10 - 0.5 - 1.0)
        client.wait_push(push)
        assert _fetch(client, here, accrued, rate=0.5).tolist() == [1]
        np.testing.assert_allclose(here, 10 - 0.5 - 1.0)

    # The fetch reads the moment it arrives; the push that left before it still has to be received and applied.
    _run(program, values=np.full(4, 10.0), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1, latency=1e-3)


def test_a_buffer_on_its_way_cannot_be_pushed_again():
    def program(client, endpoint):
        gradient = np.ones(4)
        push = client.push(gradient, np.zeros(1, np.int64))
        with pytest.raises(AssertionError, match="still in use"):
            client.push(gradient, np.zeros(1, np.int64))
        client.wait_push(push)

    _run(program, values=np.zeros(4), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1)


def test_a_push_of_another_interval_is_refused():
    def program(client, endpoint):
        header = record(HEADER, sequence=0, count=0, start=0, stop=3)
        requests = [endpoint.send(header, 0, PUSH), endpoint.send(np.ones(3), 0, PAYLOAD)]
        endpoint.wait_all(requests, TIMEOUT, "the shard")

    with pytest.raises(RuntimeError, match=r"rank 1 pushed the interval 0\.\.3 to a shard of 0\.\.4"):
        _run(program, values=np.zeros(4), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1)


def test_the_deadline_names_the_shards_that_are_silent():
    def program(endpoint):
        window = endpoint.window(64 + 32)
        if endpoint.rank:
            client = Client(endpoint, window, Placement(4, 1), [0], np.dtype(float), TIMEOUT)
            client.wait_push(client.push(np.ones(4), np.zeros(1, np.int64)))

    cluster = Cluster(2)
    with pytest.raises(RuntimeError, match=r"rank 1 waited 1 s for the shards on ranks \[0\] to apply push 0"):
        cluster.run(program)


def test_an_interval_knows_its_size():
    assert Interval(3, 10).size == 7
