"""Shards whose memory lies in their client's address space: read where it is, with the same invariant."""

import numpy as np
import pytest
from server.small_cluster import TIMEOUT, fetch, run

from distbelief.comm.sim import Cluster
from distbelief.comm.sim.window import SimWindow
from distbelief.kernels import narrow, widen
from distbelief.optim import FixedRate
from distbelief.server import Client, Placement, Server, pieces
from distbelief.server import client as client_module
from distbelief.server.exposed import MARK, Exposed
from distbelief.server.fetch import Reader
from distbelief.server.messages import RECORD


@pytest.fixture(autouse=True)
def one_node(monkeypatch):
    monkeypatch.setattr(SimWindow, "memory", lambda self, source: self._memories[source])


def bfloat16(values):
    out = np.empty(values.size, np.uint16)
    narrow(values, out)
    return out


@pytest.mark.parametrize("wire", ["native", "bfloat16"])
@pytest.mark.parametrize("held", [False, True])
def test_nothing_is_asked_for_and_the_numbers_are_the_same(monkeypatch, wire, held):
    asked = []
    monkeypatch.setattr(Reader, "values", lambda self, number, into: asked.append(number))
    values = np.linspace(1, 2, 7, dtype=np.float32)
    travelled = np.empty_like(values)
    widen(bfloat16(values), travelled)
    true = travelled if wire == "bfloat16" else values

    def program(client, endpoint):
        here = np.zeros(7, np.uint16 if held else np.float32)
        fetch(client, here)
        np.testing.assert_array_equal(here, bfloat16(true) if held else true)
        fetch(client, here, np.ones(7, np.float32), rate=0.5)
        np.testing.assert_array_equal(here, bfloat16(true - 0.5) if held else true - np.float32(0.5))
        assert client.bytes_fetched == 2 * (7 * (2 if wire == "bfloat16" else 4) + 2 * RECORD.itemsize)

    settings = Server(shards=2, fetch_wire=wire)
    parameters, *_ = run(
        program, values=values, rule=FixedRate(rate=1.0), shards=2, clients=1, pushes=0, settings=settings
    )
    np.testing.assert_array_equal(parameters, values)  # nobody has written to the shards' own
    assert not asked


def test_pieces_side_by_side_are_installed_at_once(monkeypatch):
    monkeypatch.setattr(pieces, "MOST", 3)
    at_once, renew = [], client_module.renew
    monkeypatch.setattr(
        client_module, "renew", lambda values, *rest: at_once.append(values.size) or renew(values, *rest)
    )
    values = np.arange(20.0)

    def program(client, endpoint):
        here = np.zeros(20)
        fetch(client, here)
        np.testing.assert_array_equal(here, values)
        assert at_once == [10, 10]
        at_once.clear()
        fetch(client, here, np.ones(20), rate=1.0)
        np.testing.assert_array_equal(here, values - 1)
        assert len(at_once) == len(client.pieces) == 8
        fetching = client.fetch()
        at_once.clear()
        assert client.install(fetching, here, numbers=[1, 2, 5], wait=False) == [1, 2, 5]
        assert at_once == [client.pieces[1].size + client.pieces[2].size, client.pieces[5].size]
        client.counts(fetching)

    run(program, values=values, rule=FixedRate(rate=1.0), shards=2, clients=1, pushes=0)


def test_what_waits_for_all_keeps_what_was_there():
    """An evaluator's fetch: whatever the shard does afterwards."""

    def program(client, endpoint):
        here = np.zeros(4)
        fetching = client.fetch()
        fetching.wait_all(TIMEOUT)
        counts = client.counts(fetching)
        client.wait_push(client.push(np.ones(4), counts))
        client.install(fetching, here)
        np.testing.assert_array_equal(here, np.full(4, 10.0))
        fetch(client, here)
        np.testing.assert_array_equal(here, np.full(4, 9.0))

    run(program, values=np.full(4, 10.0), rule=FixedRate(rate=1.0), shards=1, clients=1, pushes=1)


def test_a_fetch_that_lacks_a_push_is_mended_by_it():
    def program(client, endpoint):
        here, counts = np.zeros(4), np.zeros(1, np.int64)
        push = client.push(np.ones(4), counts)
        accrued = np.full(4, 2.0)
        assert fetch(client, here, accrued, rate=0.5).tolist() == [0], "the push has not arrived yet"
        np.testing.assert_allclose(here, 10 - 0.5 - 1.0)
        client.wait_push(push)
        assert fetch(client, here, accrued, rate=0.5).tolist() == [1]
        np.testing.assert_allclose(here, 10 - 0.5 - 1.0)

    run(program, values=np.full(4, 10.0), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1, latency=1e-3)


@pytest.mark.parametrize("ends", [True, False])
def test_an_update_that_is_half_way_is_waited_for(ends):
    """Of our own push: whether the values hold it, nobody can tell before."""
    exposed = Exposed.by(Server(), 4, np.dtype(float), clients=1)

    def program(endpoint):
        window = endpoint.window(exposed.nbytes if endpoint.rank == 0 else 0)
        if endpoint.rank == 0:
            parameters = window.local[exposed.parameters : exposed.shadow].view(float)
            begun, applied = window.local[exposed.begun(0) : exposed.parameters].view(MARK)[:2, None]
            parameters[:2], begun[:] = -1.0, 1
            if ends:
                endpoint.wait_message(0.01, tag=99)  # while the client reads
                parameters[:], applied[:] = -1.0, 1
            return None
        client = Client(endpoint, window, Placement(4, 1), [0], np.dtype(float), TIMEOUT, number=0)
        here = np.zeros(4)
        client.push(np.ones(4), np.zeros(1, np.int64))
        client.install(client.fetch(), here, rate=1.0)
        assert client.seconds_fetching > 0.009
        return here

    if ends:
        np.testing.assert_array_equal(Cluster(2).run(program)[1], np.full(4, -1.0))
    else:
        with pytest.raises(RuntimeError, match="rank 1 waited 1 s for the shard on rank 0 to be through with an upda"):
            Cluster(2).run(program)
