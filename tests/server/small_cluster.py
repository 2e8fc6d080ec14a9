"""Shards and clients on a simulated cluster, without coordinator and replicas."""

import numpy as np

from distbelief.algorithms.loop import serve
from distbelief.algorithms.serving import Serving
from distbelief.comm.sim import Cluster
from distbelief.server import Client, Placement, Server, Service, Shard
from distbelief.server.messages import RECORD

TIMEOUT = 1.0


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


def run(program, *, values, rule, shards, clients, pushes, settings=None, beside=False, **cluster):
    """`program(client, endpoint)` on each client rank; the shards' final parameters, their records, the results.

    `beside`: shards serve as those beside a replica do.
    """
    placement = Placement(values.size, shards)

    def role(endpoint):
        number = endpoint.rank if endpoint.rank < shards else None
        if number is None:
            nbytes = Client.room_bytes(placement, settings or Server())
        else:
            nbytes = Shard.window_bytes(placement.intervals[number], values.dtype, settings, clients)
        window = endpoint.window(nbytes)
        if number is None:
            endpoint.wait_all([endpoint.receive(np.zeros(1), s, 99) for s in range(shards)], TIMEOUT, "the shards")
            client = Client(
                endpoint,
                window,
                placement,
                list(range(shards)),
                values.dtype,
                TIMEOUT,
                settings,
                endpoint.rank - shards,
                clients,
                room=0,
            )
            result = program(client, endpoint)
            window.free()
            return result
        start, stop = placement.intervals[number]
        shard = Shard(placement.intervals[number], values[start:stop].copy(), rule, window, settings, [0] * clients)
        endpoint.wait_all([endpoint.send(np.zeros(1), shards + c, 99) for c in range(clients)], TIMEOUT, "the clients")
        parts = [Service(endpoint, shard, TIMEOUT, settings), _Until(shard, pushes)]
        if beside:
            Serving(endpoint, parts).serve()
        else:
            serve(endpoint, parts)
        told = window.local[: RECORD.itemsize].view(RECORD)[0]
        result = shard.parameters.copy(), told.copy()
        window.free()
        return result

    results = Cluster(shards + clients, **cluster).run(role)
    parameters = np.concatenate([result[0] for result in results[:shards]])
    return parameters, [result[1] for result in results[:shards]], results[shards:]


def fetch(client, parameters, accrued=None, rate=0.0):
    """Fetch, wait and install: the counts of the fetch."""
    fetching = client.fetch()
    client.install(fetching, parameters, accrued, rate)
    return client.counts(fetching)
