"""A shard's vectors: programs as they travel, commands from a coordinator, sums held until they count."""

import numpy as np
import pytest

from distbelief.algorithms.loop import serve
from distbelief.algorithms.sandblaster.space import ShardedSpace
from distbelief.comm.sim import Cluster
from distbelief.optim.space import GRADIENT, PARAMETERS, Combine, Dots, Fill, Multiply, Swap
from distbelief.optim.vectors import Vectors
from distbelief.server import Placement
from distbelief.server.messages import record
from distbelief.server.program import decode, encode
from distbelief.server.staging import HELD, HELD_RECORD, SHIPMENT, SHIPMENT_RECORD, SUM, ship
from distbelief.server.vectors import VECTORS, VectorService, read_parameters

NAMES = (PARAMETERS, GRADIENT, "a", "b")
TIMEOUT = 5.0
PROGRAMS = [
    [Combine("a", (0.5, -3.25), (PARAMETERS, "a")), Dots(("a", PARAMETERS), (PARAMETERS, "a", GRADIENT))],
    [],
    [Fill("b", 1 / 3), Swap("a", "b"), Multiply(GRADIENT, "a", PARAMETERS), Combine("b", (), ())],
    [Dots(("a",), ("b",)), Dots((GRADIENT,), (GRADIENT,)), Combine(PARAMETERS, (1.0, 1e-300), (PARAMETERS, GRADIENT))],
    [Dots((PARAMETERS, GRADIENT, "a", "b"), (PARAMETERS, GRADIENT, "a", "b"))],
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_the_same_after_its_journey(program):
    assert decode(encode(program, NAMES), NAMES) == program


def test_a_vector_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no vector is called c; there are parameters, gradient, a, b"):
        encode([Fill("c", 0.0)], NAMES)


class _Until:
    tags = (99,)
    finished = False

    def take(self, envelope):
        self.finished = True

    def work(self):
        return TIMEOUT


def on_shards(shards: int, values: np.ndarray, program, dtype=np.float64, log=None, others=0):
    """`program(endpoint, space, window)` on the first rank after the shards'; what it and the shards return."""
    placement = Placement(values.size, shards)

    def role(endpoint):
        here = endpoint.rank
        nbytes = placement.intervals[here].size * np.dtype(dtype).itemsize if here < shards else 0
        window = endpoint.window(nbytes)
        if here < shards:
            start, stop = placement.intervals[here]
            service = VectorService(
                endpoint, window, placement.intervals[here], values[start:stop], NAMES, shards, TIMEOUT
            )
            serve(endpoint, [service, _Until()])
            return {name: service.vectors[name].copy() for name in NAMES}
        if here > shards:
            return None
        parts = []
        space = ShardedSpace(endpoint, range(shards), NAMES, TIMEOUT, lambda until: serve(endpoint, parts, until))
        parts.append(space)
        result = program(endpoint, space, window)
        for shard in range(shards):
            endpoint.send(np.zeros(1), shard, 99)
        return result

    *vectors, result = Cluster(shards + 1, log=log).run(role)
    return {name: np.concatenate([each[name] for each in vectors]) for name in NAMES}, result


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_commands_do_on_shards_what_they_do_in_one_process(shards, dtype):
    values = np.random.default_rng(1).standard_normal(50).astype(dtype)
    here = Vectors(NAMES, 50, dtype)
    here[PARAMETERS][:] = values

    def program(endpoint, space, window):
        answers = [space.run(commands) for commands in PROGRAMS]
        seen = np.empty(50, dtype)
        read_parameters(endpoint, window, Placement(50, shards), range(shards), seen, TIMEOUT)
        return answers, seen, space.point

    vectors, (answers, seen, point) = on_shards(shards, values, program, dtype)
    truth = [here.run(commands) for commands in PROGRAMS]
    for some, others in zip(answers, truth, strict=True):
        assert [a.shape for a in some] == [b.shape for b in others]
        for a, b in zip(some, others, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for name in NAMES:
        np.testing.assert_array_equal(vectors[name], here[name])
    np.testing.assert_array_equal(seen, here[PARAMETERS])  # one-sided
    assert point == 1  # one program has changed the parameters


def test_a_program_takes_one_round_trip_whatever_is_in_it():
    import io

    log = io.StringIO()
    on_shards(3, np.ones(30), lambda endpoint, space, window: [space.run(program) for program in PROGRAMS], log=log)
    words = [line.split() for line in log.getvalue().splitlines()]
    sent = [word for word in words if word[2] == "send" and word[4] == str(VECTORS)]
    answered = [word for word in words if word[2] == "send" and word[3] == "3"]
    assert len(sent) == len(answered) == 3 * len(PROGRAMS)


def shipped(orders):
    """The only shard gets shipments 7 and 8, and then `orders(space)`: its vectors, and what it said that it held."""
    placement = Placement(6, 1)

    def program(endpoint, space, window):
        space.run([Fill(GRADIENT, 1.0)])
        sums = {7: np.arange(6.0), 8: np.full(6, 100.0)}
        space.abort(8)
        whole = [(0, 6)]
        requests = [ship(endpoint, placement, [0], number, [number, 3], total, whole) for number, total in sums.items()]
        held = np.zeros(1, HELD_RECORD)
        endpoint.wait_all([endpoint.receive(held, 0, HELD)], TIMEOUT, "the shard to hold it")
        endpoint.wait_all([request for each in requests for request in each], TIMEOUT, "the shard")
        orders(space)
        space.run([])
        return held["shipment"][0], endpoint.probe(0, HELD)

    return on_shards(1, np.zeros(6), program)


def test_a_sum_counts_once_it_is_committed():
    vectors, (held, more) = shipped(lambda space: space.commit(1, 7, [7, 3]))
    np.testing.assert_array_equal(vectors[GRADIENT], 1 + np.arange(6.0))
    assert (held, more) == (7, None)  # the other one had been aborted before it came


def test_a_sum_that_is_aborted_never_counts():
    vectors, _ = shipped(lambda space: space.abort(7))
    np.testing.assert_array_equal(vectors[GRADIENT], np.ones(6))


def test_a_shipment_must_hold_the_portions_that_the_coordinator_counts():
    with pytest.raises(RuntimeError, match=r"shipment 7 holds the portions \[7, 3\], the coordinator counts \[7\]"):
        shipped(lambda space: space.commit(1, 7, [7]))


def send_part(endpoint, number: int, pieces, values, portions=(4,), nbytes=None) -> None:
    """A part of shipment `number`, of `pieces` of the flat vector, to the shard on rank 0."""
    fields = record(SHIPMENT_RECORD, shipment=number, nbytes=nbytes or 8 * len(values), pieces=len(pieces))
    said = fields, np.array(pieces, "<i8").reshape(-1), np.array(portions, "<i4")
    endpoint.send(np.concatenate([each.view(np.uint8) for each in said]), 0, SHIPMENT)
    endpoint.send(np.array(values, np.float64), 0, SUM)


@pytest.mark.parametrize(
    ("pieces", "values", "words"),
    [
        ([(0, 7)], np.zeros(7), r"has 56 bytes for 0\.\.7, not of the 0\.\.6 here"),
        ([(0, 2), (3, 9)], np.zeros(8), r"has 64 bytes for 0\.\.2, 3\.\.9, not of the 0\.\.6 here"),
        ([(0, 5)], np.zeros(6), r"has 48 bytes for 0\.\.5, not of the 0\.\.6 here"),
    ],
)
def test_a_shipment_for_another_interval_is_named(pieces, values, words):
    def program(endpoint, space, window):
        send_part(endpoint, 5, pieces, values)
        space.run([])

    with pytest.raises(RuntimeError, match=f"shipment 5 from rank 1 {words}"):
        on_shards(1, np.zeros(6), program)


@pytest.mark.parametrize(
    ("pieces", "portions"),
    [([(0, 4)], (4,)), ([(0, 3)], (5,))],  # more than is left; a sum of other portions
)
def test_parts_that_do_not_belong_together_are_named(pieces, portions):
    def program(endpoint, space, window):
        send_part(endpoint, 5, [(3, 6)], np.zeros(3))
        send_part(endpoint, 5, pieces, np.zeros(pieces[0][1]), portions)
        space.run([])

    with pytest.raises(RuntimeError, match="shipment 5 from rank 1 is no part of the one of which others have come"):
        on_shards(1, np.zeros(6), program)


def in_parts(orders):
    """The only shard gets shipments 7 and 8 in three parts each, none of them in order, and the last of 7 after
    `orders(space)`: its vectors, and what it said that it held before and after."""

    def program(endpoint, space, window):
        space.run([Fill(GRADIENT, 1.0)])
        send_part(endpoint, 7, [(1, 2), (4, 6)], [10, 40, 50])
        send_part(endpoint, 8, [(0, 2)], [100, 100])
        send_part(endpoint, 7, [(3, 4)], [30])
        send_part(endpoint, 8, [(2, 3)], [100])
        send_part(endpoint, 8, [(3, 6)], [100, 100, 100])
        early = held(endpoint)
        orders(space)
        space.run([])
        send_part(endpoint, 7, [(0, 1), (2, 3)], [5, 20])
        late = held(endpoint)
        space.commit(1, late or early, [4])
        space.run([])
        return early, late

    return on_shards(1, np.zeros(6), program)


def held(endpoint) -> int | None:
    """The shipment that the shard says it holds, if it does within a second."""
    if endpoint.wait_message(1.0, 0, HELD) is None:
        return None
    said = np.zeros(1, HELD_RECORD)
    endpoint.wait_all([endpoint.receive(said, 0, HELD)], TIMEOUT, "the shard")
    return int(said["shipment"][0])


def test_a_sum_in_parts_is_held_once_all_of_them_are_here():
    vectors, found = in_parts(lambda space: None)
    assert found == (8, 7)
    np.testing.assert_array_equal(vectors[GRADIENT], 1 + np.array([5, 10, 20, 30, 40, 50]))


def test_a_sum_that_is_aborted_between_two_parts_never_counts():
    vectors, found = in_parts(lambda space: space.abort(7))
    assert found == (8, None)
    np.testing.assert_array_equal(vectors[GRADIENT], np.full(6, 101.0))


def test_a_sum_goes_to_the_shards_from_wherever_its_pieces_lie():
    """Two ranks hold pieces of a vector of 30 on 3 shards, as two partitions do."""
    pieces = [[(0, 4), (12, 15), (20, 29)], [(4, 12), (15, 20), (29, 30)]]
    placement, total = Placement(30, 3), np.random.default_rng(0).standard_normal(30)

    def program(endpoint, space, window):
        requests, seen = [], []
        for mine in pieces:
            part = np.concatenate([total[start:stop] for start, stop in mine])
            requests += ship(endpoint, placement, range(3), 2, [4], part, mine)
            fetched = np.zeros(part.size)
            read_parameters(endpoint, window, placement, range(3), fetched, TIMEOUT, mine)
            seen.append(fetched)
        assert len(requests) == 2 * (3 + 3)  # a header and a sum for each shard that a rank has something of
        for shard in range(3):
            said = np.zeros(1, HELD_RECORD)
            endpoint.wait_all([endpoint.receive(said, shard, HELD)], TIMEOUT, "the shards to hold it")
        space.commit(1, 2, [4])
        space.run([])
        return seen

    values = np.arange(30.0)
    vectors, seen = on_shards(3, values, program)
    np.testing.assert_array_equal(vectors[GRADIENT], total)
    for mine, fetched in zip(pieces, seen, strict=True):
        np.testing.assert_array_equal(fetched, np.concatenate([values[start:stop] for start, stop in mine]))
