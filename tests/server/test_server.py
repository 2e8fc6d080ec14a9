"""The parameter server by itself: placement, staleness by its definition, the client's invariant."""

import math

import numpy as np
import pytest
from server.small_cluster import TIMEOUT, fetch, run

from distbelief.comm.sim import Cluster
from distbelief.optim import Adagrad, FixedRate
from distbelief.server import Client, Interval, Placement, Server
from distbelief.server.exposed import MARK, Exposed
from distbelief.server.fetch import Fetch, Reader
from distbelief.server.messages import (
    APPLIED,
    EDGES,
    FETCHING,
    GRADIENT,
    HEADER,
    PUSH,
    RECORD,
    THROUGH,
    bucket,
    payload_tag,
    record,
)


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


@pytest.mark.parametrize("shards", [1, 3])
def test_fetch_brings_what_pushes_made(shards):
    values = np.arange(10, dtype=np.float32)
    gradients = [np.linspace(-1, 1, 10, dtype=np.float32), np.full(10, 0.5, np.float32)]

    def program(client, endpoint):
        here = np.zeros(10, np.float32)
        counts = fetch(client, here)
        np.testing.assert_array_equal(here, values)
        assert counts.tolist() == [0] * shards
        for gradient in gradients:
            client.wait_push(client.push(gradient, counts))
        assert fetch(client, here).tolist() == [2] * shards
        return here

    parameters, records, (here,) = run(
        program, values=values, rule=Adagrad(rate=0.1), shards=shards, clients=1, pushes=2
    )
    expected, squares = values.copy(), np.zeros(10, np.float32)
    for gradient in gradients:
        squares += gradient**2
        expected -= 0.1 * gradient / np.sqrt(squares)
    np.testing.assert_allclose(parameters, expected, rtol=1e-6)
    np.testing.assert_array_equal(here, parameters)
    # count, sum and maximum of the staleness: the second push was computed from the first fetch.
    for told in records:
        assert (told["count"], told["staleness_sum"], told["staleness_max"]) == (2, 1, 1)
        assert told["staleness_histogram"][:3].tolist() == [1, 1, 0]


def test_staleness_is_the_updates_between_fetch_and_push():
    """Two clients in a fixed order: A and B fetch, A pushes, B pushes (1 late), B pushes again (2 late)."""

    def program(client, endpoint):
        here = np.zeros(4)
        counts = fetch(client, here)
        turn = np.zeros(1)
        if endpoint.rank == 1:
            client.wait_push(client.push(np.ones(4), counts))
            endpoint.wait_all([endpoint.send(turn, 2, 50)], TIMEOUT, "B")
        else:
            endpoint.wait_all([endpoint.receive(turn, 1, 50)], TIMEOUT, "A")
            client.wait_push(client.push(np.ones(4), counts))
            client.wait_push(client.push(np.ones(4), counts))

    _, (told,), _ = run(
        program, values=np.zeros(4), rule=FixedRate(rate=1.0), shards=1, clients=2, pushes=3, latency=1e-3
    )
    assert (told["count"], told["staleness_sum"], told["staleness_max"]) == (3, 0 + 1 + 2, 2)
    assert told["staleness_histogram"][:4].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("late", [31, 32, 300, 8191, 8192, 10**9])
def test_a_large_staleness_is_counted_in_a_bucket_an_eighth_of_it_wide_and_exactly_in_sum_and_maximum(late):
    def program(client, endpoint):
        client.wait_push(client.push(np.ones(4), np.array([-late])))  # as if so many had come in between

    _, (told,), _ = run(program, values=np.zeros(4), rule=FixedRate(rate=1.0), shards=1, clients=1, pushes=1)
    assert (told["staleness_sum"], told["staleness_max"]) == (late, late)
    (filled,) = np.flatnonzero(told["staleness_histogram"])
    assert EDGES[filled] <= late
    if late < EDGES[-1]:
        assert late < EDGES[filled + 1] <= EDGES[filled] + max(EDGES[filled] / 8, 1)
    else:
        assert filled == len(EDGES) - 1


def test_each_staleness_has_its_bucket():
    begins = [bucket(staleness) for staleness in range(EDGES[-1] + 1)]
    assert begins == sorted(begins) and set(begins) == set(range(len(EDGES)))
    assert begins[:33] == list(range(33)) and bucket(-1) == 0


@pytest.mark.parametrize("latency", [0.0, 1e-3])
def test_where_nothing_can_be_lacking_values_are_read_straight_to_where_they_belong(monkeypatch, latency):
    """By way of a buffer goes what is asked for ahead, or is to be mended; the numbers are the same."""
    buffers, buffer = [], Reader.buffer
    monkeypatch.setattr(Reader, "buffer", lambda self, number: buffers.append(number) or buffer(self, number))

    def program(client, endpoint):
        here = np.zeros(6)
        client.install(client.fetch(), here)
        # Only when the first piece is there at once, the others wait to be wanted.
        assert buffers == ([0] if latency == 0 else [0, 1, 2])
        assert here.tolist() == [10, 11, 12, 13, 14, 15]
        buffers.clear()
        client.install(client.fetch(), here, np.ones(6), rate=1.0)
        assert buffers == [0, 1, 2] and here.tolist() == [9, 10, 11, 12, 13, 14]

    values = np.arange(10.0, 16.0)
    cluster = {"latency": latency, "bandwidth": math.inf}
    run(program, values=values, rule=FixedRate(rate=0.5), shards=3, clients=1, pushes=0, **cluster)


def test_a_fetch_that_lacks_a_push_is_mended_by_it():
    """The client's invariant: the fetch overtakes the push, yet the replica keeps its own step."""

    def program(client, endpoint):
        here = np.zeros(4)
        counts = fetch(client, here, rate=0.5)
        here -= 0.5  # the local step with a gradient of ones
        push = client.push(np.ones(4), counts)
        accrued = np.full(4, 2.0)  # a second step, not pushed yet
        here -= 0.5 * accrued
        counts = fetch(client, here, accrued, rate=0.5)
        assert counts.tolist() == [0], "the push has not arrived yet"
        np.testing.assert_allclose(here, 10 - 0.5 - 1.0)
        client.wait_push(push)
        assert fetch(client, here, accrued, rate=0.5).tolist() == [1]
        np.testing.assert_allclose(here, 10 - 0.5 - 1.0)

    # The fetch reads the moment it arrives; the push that left before it still has to be received and applied.
    run(program, values=np.full(4, 10.0), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1, latency=1e-3)


def test_a_buffer_on_its_way_cannot_be_pushed_again():
    def program(client, endpoint):
        gradient = np.ones(4)
        push = client.push(gradient, np.zeros(1, np.int64))
        with pytest.raises(AssertionError, match="still in use"):
            client.push(gradient, np.zeros(1, np.int64))
        client.wait_push(push)

    run(program, values=np.zeros(4), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1)


def _header(**fields):
    return record(HEADER, **{"kind": GRADIENT, "sequence": 99, "start": 0, "stop": 4, "nbytes": 32, "mark": 7} | fields)


PAYLOAD = payload_tag(7)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([(_header(stop=5, nbytes=40), PUSH), (np.ones(5), PAYLOAD)], "a push of 40 bytes for the interval 0..5"),
        ([(_header(start=-1, stop=2, nbytes=24), PUSH), (np.ones(3), PAYLOAD)], "for the interval -1..2, expected"),
        ([(_header(start=3, stop=2, nbytes=8), PUSH), (np.ones(1), PAYLOAD)], "for the interval 3..2, expected"),
        ([(_header(nbytes=16), PUSH), (np.ones(2), PAYLOAD)], "expected 8 bytes for each of an interval within 0..4"),
        ([(_header(), PUSH), (np.ones(5), PAYLOAD)], "a payload of 40 bytes, expected 32 as its header says"),
        ([(_header(), PUSH), (np.ones(3), PAYLOAD)], "a payload of 24 bytes, expected 32 as its header says"),
        ([(_header(client=1), PUSH), (np.ones(4), PAYLOAD)], "a header of client 1, of 1"),
        ([(_header(kind=THROUGH, client=-1, nbytes=0), PUSH)], "a header of client -1, of 1"),
        ([(_header(kind=77), PUSH), (np.ones(4), PAYLOAD)], "a header of unknown kind 77"),
        ([(_header(kind=77, nbytes=0), PUSH)], "a header of unknown kind 77"),
        ([(_header(kind=77), PUSH)], "a header of unknown kind 77"),
        ([(_header(kind=77, nbytes=0), PUSH), (np.ones(4), PAYLOAD)], "a header of unknown kind 77"),
        ([(np.zeros(5, np.uint8), PUSH)], f"a header of 5 bytes, expected {HEADER.itemsize}"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_what_a_shard_cannot_take_is_refused_and_the_next_push_is_applied(messages, words, beside, capsys):
    def program(client, endpoint):
        endpoint.wait_all([endpoint.send(buffer, 0, tag) for buffer, tag in messages], TIMEOUT, "the shard")
        client.wait_push(client.push(np.ones(4), np.zeros(1, np.int64)))
        assert endpoint.clock() < TIMEOUT / 10, "nobody waits for what does not come"

    parameters, (told,), _ = run(
        program, values=np.zeros(4), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1, beside=beside
    )
    np.testing.assert_array_equal(parameters, np.full(4, -0.5))
    assert told["refused"] == 1 and told["count"] == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said and "refused" in said and "from rank 1" in said


@pytest.mark.parametrize(
    ("header", "refused"),
    [
        (np.zeros(5, np.uint8), 2),  # with the payload, as nobody can tell that it belongs to this header
        (_header(kind=FETCHING, nbytes=0), 1),
        (_header(kind=THROUGH, nbytes=0), 1),
        (None, 1),
    ],
)
def test_a_payload_that_belongs_to_no_push_is_never_applied(header, refused, capsys):
    def program(client, endpoint):
        messages = [] if header is None else [(header, PUSH)]
        messages += [(np.full(4, 100.0), PAYLOAD)]
        endpoint.wait_all([endpoint.send(buffer, 0, tag) for buffer, tag in messages], TIMEOUT, "the shard")
        client.wait_push(client.push(np.ones(4), np.zeros(1, np.int64)))

    parameters, (told,), _ = run(program, values=np.zeros(4), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1)
    np.testing.assert_array_equal(parameters, np.full(4, -0.5))
    assert told["refused"] == refused and told["count"] == 1
    assert "a payload of 32 bytes without a header, from rank 1" in capsys.readouterr().err


def test_a_payload_that_belongs_to_no_push_is_left_alone_beside_a_replica():
    """There nobody looks for it, and the next push has another tag."""

    def program(client, endpoint):
        endpoint.send(np.zeros(5, np.uint8), 0, PUSH), endpoint.send(np.full(4, 100.0), 0, PAYLOAD)
        client.wait_push(client.push(np.ones(4), np.zeros(1, np.int64)))

    parameters, (told,), _ = run(
        program, values=np.zeros(4), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1, beside=True
    )
    np.testing.assert_array_equal(parameters, np.full(4, -0.5))
    assert told["refused"] == 1 and told["count"] == 1


@pytest.mark.parametrize("wrong", ["header", "payload"])
def test_a_push_of_which_a_piece_is_refused_is_not_an_update(wrong, capsys):
    """What follows the piece is not applied, the push neither counted nor acknowledged; the next one is."""

    def program(client, endpoint):
        def piece(mark, start, payload, nbytes=16, last=False):
            header = _header(mark=mark, start=start, stop=start + 2, nbytes=nbytes, sequence=0, last=last)
            return endpoint.send(header, 0, PUSH), endpoint.send(payload, 0, payload_tag(mark))

        sent = [*piece(1, 0, np.ones(2))]
        sent += piece(2, 2, np.ones(1), nbytes=8 if wrong == "header" else 16)
        sent += piece(3, 4, np.ones(2), last=True)
        endpoint.wait_all(sent, TIMEOUT, "the shard")
        assert endpoint.wait_message(TIMEOUT / 10, tag=APPLIED) is None
        client._sequence = 1
        client.wait_push(client.push(np.ones(6), np.zeros(1, np.int64)))

    parameters, (told,), _ = run(program, values=np.zeros(6), rule=FixedRate(rate=1.0), shards=1, clients=1, pushes=1)
    np.testing.assert_array_equal(parameters, [-2, -2, -1, -1, -1, -1])
    assert told["refused"] == 1 and told["count"] == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("straight", [True, False])
def test_seconds_spent_fetching_and_pushing_are_told(straight):
    """Nothing else takes time: 8 kB at 1 MB/s each way, and a latency."""

    def program(client, endpoint):
        began = endpoint.clock()
        here = np.zeros(1000)
        counts = fetch(client, here, None if straight else np.zeros(1000), rate=0.5)
        fetched = endpoint.clock()
        assert client.seconds_fetching == pytest.approx(fetched - began, rel=1e-3) and fetched - began > 8e-3
        client.wait_push(client.push(np.ones(1000), counts))
        assert client.seconds_pushing == pytest.approx(endpoint.clock() - fetched, rel=1e-3)
        assert client.seconds_pushing > 8e-3

    cluster = {"latency": 1e-4, "bandwidth": 1e6}
    run(program, values=np.zeros(1000), rule=FixedRate(rate=0.5), shards=1, clients=1, pushes=1, **cluster)


def test_seconds_spent_reading_straight_to_where_values_belong_are_told(monkeypatch):
    """Nothing takes time but copying: 8 kB at 1 MB/s, as from the memory of the same node."""
    values, reads, read = Reader.values, [], Fetch.read

    def copy(self, number, into):
        self.endpoint.charge(nbytes=into.nbytes)
        return values(self, number, into)

    def count(self, numbers, into, timeout):
        reads.append(into.size)
        return read(self, numbers, into, timeout)

    monkeypatch.setattr(Reader, "values", copy)
    monkeypatch.setattr(Fetch, "read", count)

    def program(client, endpoint):
        began = endpoint.clock()
        client.install(client.fetch(), np.zeros(1000))
        took = endpoint.clock() - began
        assert client.seconds_fetching == pytest.approx(took, rel=1e-3) and took > 8e-3
        assert reads == [250, 250, 250], "all but the first piece"

    cluster = {"latency": 0.0, "bandwidth": math.inf, "memory_bandwidth": 1e6}
    run(program, values=np.zeros(1000), rule=FixedRate(rate=0.5), shards=4, clients=1, pushes=0, **cluster)


def test_the_deadline_names_the_shards_that_are_silent():
    def program(endpoint):
        window = endpoint.window(RECORD.itemsize + 32)
        if endpoint.rank:
            client = Client(endpoint, window, Placement(4, 1), [0], np.dtype(float), TIMEOUT)
            client.wait_push(client.push(np.ones(4), np.zeros(1, np.int64)))

    cluster = Cluster(2)
    with pytest.raises(RuntimeError, match=r"rank 1 waited 1 s for the shards on ranks \[0\] to apply push 0"):
        cluster.run(program)


def test_the_deadline_names_the_shard_that_never_ends_an_update():
    exposed = Exposed.by(Server(), 4, np.dtype(float), clients=1)

    def program(endpoint):
        window = endpoint.window(exposed.nbytes if endpoint.rank == 0 else 0)
        if endpoint.rank == 0:  # it has begun to apply the client's first piece, and dies
            window.local[exposed.begun(0) :][: MARK.itemsize].view(MARK)[0] = 1
            window.sync()
            return
        client = Client(endpoint, window, Placement(4, 1), [0], np.dtype(float), TIMEOUT, number=0)
        client.push(np.ones(4), np.zeros(1, np.int64))
        client.install(client.fetch(), np.zeros(4))

    with pytest.raises(RuntimeError, match="rank 1 waited 1 s for the shard on rank 0 to be through with an update"):
        Cluster(2).run(program)


def test_an_interval_knows_its_size():
    assert Interval(3, 10).size == 7
