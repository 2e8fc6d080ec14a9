"""Clients that deal with some intervals of the parameters, as the partitions of a model-parallel replica do."""

import numpy as np
import pytest
from server.small_cluster import TIMEOUT

from distbelief.algorithms.loop import serve
from distbelief.comm.sim import Cluster
from distbelief.optim import FixedRate
from distbelief.server import Client, Interval, Placement, Service, Shard, pieces
from distbelief.server.messages import PUSH

SIZE, SHARDS = 40, 4
# Partition 0 has nothing of shards 1 and 3.
PARTITIONS = [[Interval(22, 27), Interval(0, 6)], [Interval(6, 22), Interval(27, 40)]]


class _Until:
    tags = ()

    def __init__(self, shard, count):
        self._shard, self._count = shard, count

    @property
    def finished(self):
        return self._shard.count >= self._count

    def work(self):
        return TIMEOUT


def cluster_of(program, log=None):
    """Shards on ranks 0 to 3, a client on ranks 4 and 5 for each partition; what the shards end with, the results."""
    placement = Placement(SIZE, SHARDS)
    touched = [{shard for shard, _ in placement.intersect(intervals)} for intervals in PARTITIONS]
    values = np.arange(float(SIZE))

    def role(endpoint):
        number = endpoint.rank - SHARDS
        interval = placement.intervals[endpoint.rank] if number < 0 else None
        nbytes = 0 if interval is None else Shard.window_bytes(interval, np.float64, clients=2)
        window = endpoint.window(nbytes)
        if interval is None:
            endpoint.wait_all([endpoint.receive(np.zeros(1), s, 99) for s in range(SHARDS)], TIMEOUT, "the shards")
            client = Client(
                endpoint,
                window,
                placement,
                list(range(SHARDS)),
                np.float64,
                TIMEOUT,
                number=number,
                clients=2,
                intervals=PARTITIONS[number],
            )
            result = program(client, number)
        else:
            shard = Shard(interval, values[slice(*interval)], FixedRate(rate=1.0), window, clocks=[0, 0])
            endpoint.wait_all([endpoint.send(np.zeros(1), SHARDS + c, 99) for c in range(2)], TIMEOUT, "the clients")
            pushes = sum(endpoint.rank in shards for shards in touched)
            serve(endpoint, [Service(endpoint, shard, TIMEOUT), _Until(shard, pushes)])
            result = shard.parameters.copy()
        window.free()
        return result

    results = Cluster(SHARDS + 2, log=log).run(role)
    return np.concatenate(results[:SHARDS]), results[SHARDS:]


@pytest.mark.parametrize(("least", "most"), [(1, 100), (1, 3), (100, 7)])
def test_they_fetch_and_push_their_own(monkeypatch, least, most):
    monkeypatch.setattr(pieces, "LEAST", least)
    monkeypatch.setattr(pieces, "MOST", most)

    def program(client, number):
        own = np.concatenate([np.arange(float(start), stop) for start, stop in PARTITIONS[number]])
        here = np.zeros(client.size)
        fetch = client.fetch()
        client.install(fetch, here)
        np.testing.assert_array_equal(here, own)
        client.wait_push(client.push(0.5 * own, client.counts(fetch)))
        return client.bytes_pushed

    parameters, _ = cluster_of(program)
    np.testing.assert_array_equal(parameters, 0.5 * np.arange(SIZE))


def test_they_talk_to_no_other_shard_and_read_of_no_other(tmp_path):
    def program(client, number):
        fetch = client.fetch()
        client.install(fetch, np.zeros(client.size))
        client.wait_push(client.push(np.zeros(client.size), client.counts(fetch)))
        client.install(client.fetch(), np.zeros(client.size), np.zeros(client.size), rate=1.0)
        client.wait_for_the_slowest(1, lead=1)
        client.leave()

    path = tmp_path / "log"
    with path.open("w") as log:
        cluster_of(program, log)
    lines = [line.split() for line in path.read_text().splitlines()]
    told = {rank: {w[3] for w in lines if w[1:3] == [rank, "send"] and w[4] == str(PUSH)} for rank in ("4", "5")}
    assert told == {"4": {"0", "2"}, "5": {"0", "1", "2", "3"}}
    read = {rank: {w[3] for w in lines if w[1:3] == [rank, "get"]} for rank in ("4", "5")}
    assert read == told


def test_the_step_that_a_fetch_lacks_is_taken_in_the_own_vector():
    def program(client, number):
        own = np.concatenate([np.arange(float(start), stop) for start, stop in PARTITIONS[number]])
        push = client.push(np.full(client.size, 2.0), np.zeros(SHARDS, np.int64))
        here = np.zeros(client.size)
        client.install(client.fetch(), here, accrued=np.full(client.size, 1.0), rate=1.0)
        np.testing.assert_array_equal(here, own - 3.0)
        client.wait_push(push)

    cluster_of(program)
