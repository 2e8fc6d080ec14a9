"""Shards whose memory lies in their client's address space: read where it is, with the same invariant."""

import numpy as np
import pytest
from server.small_cluster import TIMEOUT, fetch, run

from distbelief.comm.sim import Cluster
from distbelief.comm.sim.window import SimWindow
from distbelief.kernels import narrow, widen
from distbelief.optim import FixedRate
from distbelief.server import Client, Placement, Server, installing, pieces, rounding
from distbelief.server.exposed import MARK, Exposed
from distbelief.server.fetch import Reader
from distbelief.server.messages import HEADER, LYING, PUSH, RECORD, record


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
    at_once, renew = [], installing.renew
    monkeypatch.setattr(installing, "renew", lambda values, *rest: at_once.append(values.size) or renew(values, *rest))
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


NARROW = Server(push_wire="bfloat16")


def sent_by(endpoint, monkeypatch):
    """The bytes of all messages that an endpoint sends from now on."""
    sizes, send = [], endpoint.send
    monkeypatch.setattr(endpoint, "send", lambda buffer, *to: sizes.append(buffer.nbytes) or send(buffer, *to))
    return sizes


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gradient_in_bfloat16_is_applied_from_where_it_lies(monkeypatch, dtype, beside):
    """No payload travels, and what rounding loses is carried over as ever: two halves of a bit make one."""
    gradient = np.tile(np.array([1 + 2**-8, -3, 1e-3, 0], dtype), 5)

    def program(client, endpoint):
        sizes = sent_by(endpoint, monkeypatch)
        for _ in range(2):
            client.wait_push(client.push(gradient, np.zeros(2, np.int64)))
        assert sizes == 4 * [HEADER.itemsize]
        assert client.bytes_pushed == 2 * (20 * 2 + 2 * HEADER.itemsize)

    (near, *_), (far, *_) = (
        run(
            program if is_near else pushing_twice(gradient),
            values=np.zeros(20, dtype),
            rule=FixedRate(rate=1.0),
            shards=2,
            clients=1,
            pushes=2,
            settings=NARROW,
            beside=beside,
        )
        for is_near in near_then_far(monkeypatch)
    )
    np.testing.assert_array_equal(near, far)
    np.testing.assert_allclose(near, -2 * gradient, rtol=2**-9)
    np.testing.assert_array_equal(near[::4], dtype(-2 - 2**-7))


def pushing_twice(gradient):
    def program(client, endpoint):
        for _ in range(2):
            client.wait_push(client.push(gradient, np.zeros(2, np.int64)))

    return program


def near_then_far(monkeypatch):
    yield True
    monkeypatch.setattr(SimWindow, "memory", lambda self, source: None)
    yield False


def test_a_gradient_that_finds_no_room_travels(monkeypatch):
    """A piece has a buffer in the window until its shard has applied it."""
    monkeypatch.setattr(pieces, "MOST", 8)
    monkeypatch.setattr(rounding, "TOGETHER", 2)

    def program(client, endpoint):
        sizes = sent_by(endpoint, monkeypatch)
        for _ in range(2):
            client.wait_push(client.push(np.arange(32.0), np.zeros(1, np.int64)))
        near, far = [HEADER.itemsize], [HEADER.itemsize, 8 * 2]
        assert sizes == 2 * (near + near + far + far)

    parameters, *_ = run(
        program, values=np.zeros(32), rule=FixedRate(rate=1.0), shards=1, clients=1, pushes=2, settings=NARROW
    )
    np.testing.assert_array_equal(parameters, -2 * np.arange(32.0))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"place": -2}, "a push that lies at -2..6 of the 64 bytes it can read there"),
        ({"place": 58}, "at 58..66 of the 64 bytes"),
        ({"place": 1 << 62}, "of the 64 bytes"),
        ({"place": 1}, "at 1..9 of the 64 bytes"),
        ({"nbytes": 6}, "a push of 6 bytes for the interval 0..4"),
        ({"stop": 5, "nbytes": 10}, "for the interval 0..5"),
        ({"client": 3}, "a header of client 3, of 1"),
    ],
)
def test_what_does_not_lie_where_it_is_said_to_is_refused(fields, words, capsys):
    header = {"kind": LYING, "sequence": 99, "start": 0, "stop": 4, "nbytes": 8, "mark": 7}

    def program(client, endpoint):
        said = record(HEADER, **header | fields)
        endpoint.wait_all([endpoint.send(said, 0, PUSH)], TIMEOUT, "the shard")
        client.wait_push(client.push(np.ones(4), np.zeros(1, np.int64)))
        assert endpoint.clock() < TIMEOUT / 10, "nobody waits for a payload"

    parameters, (told,), _ = run(
        program, values=np.zeros(4), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1, settings=NARROW
    )
    np.testing.assert_array_equal(parameters, np.full(4, -0.5))
    assert told["refused"] == 1 and told["count"] == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said and "from rank 1" in said


def test_what_lies_on_another_node_cannot_be_read(monkeypatch, capsys):
    monkeypatch.setattr(SimWindow, "memory", lambda self, source: None)

    def program(client, endpoint):
        header = record(HEADER, kind=LYING, sequence=99, start=0, stop=4, nbytes=8, mark=7)
        endpoint.wait_all([endpoint.send(header, 0, PUSH)], TIMEOUT, "the shard")
        client.wait_push(client.push(np.ones(4), np.zeros(1, np.int64)))

    run(program, values=np.zeros(4), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1, settings=NARROW)
    assert "a push that lies at 0..8 of the 0 bytes it can read there, from rank 1" in capsys.readouterr().err
