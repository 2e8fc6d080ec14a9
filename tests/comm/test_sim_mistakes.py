"""What the simulator says of programs that are wrong; it is stricter than MPI."""

import numpy as np
import pytest

from distbelief.comm.sim import Cluster, Deadlock, TimeLimit


def test_error_comes_out_with_rank_and_time() -> None:
    ended = []

    def program(endpoint):
        try:
            endpoint.charge(nbytes=10e9 * (1 + endpoint.rank))
            if endpoint.rank == 1:
                raise KeyError("lost")
            endpoint.wait_message(100.0)
        finally:
            ended.append(endpoint.rank)

    with pytest.raises(KeyError, match="lost") as caught:
        Cluster(3).run(program)
    assert caught.value.__notes__ == ["raised by rank 1 of the simulated cluster at 2.000000000 s"]
    assert ended == [1, 0, 2]


def test_deadlock_names_everyone() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            endpoint.wait_message(float("inf"), tag=4)
        elif endpoint.rank == 1:
            endpoint.charge(nbytes=10e9)
            endpoint.wait_all([endpoint.receive(np.zeros(1), 0, 1)], float("inf"), "rank 0 to answer")
        elif endpoint.rank == 2:
            endpoint.window(8)

    with pytest.raises(Deadlock) as caught:
        Cluster(4).run(program)
    assert str(caught.value).splitlines() == [
        "deadlock at virtual time 1.000000100 s:",
        "  rank 0 has waited since 0.000000100 s for a message from any rank with tag 4",
        "  rank 1 has waited since 1.000000100 s for rank 0 to answer",
        "  rank 2 has waited since 0.000000000 s for all 4 ranks of group 0 to call window",
    ]


@pytest.mark.parametrize("count", [1, 1000])
def test_changing_a_buffer_under_way_is_caught(count: int) -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            buffer = np.zeros(count)
            request = endpoint.send(buffer, 1, 3)
            buffer[-1] = 1
            endpoint.wait_all([request], 1.0, "rank 1")
        else:
            endpoint.wait_all([endpoint.receive(np.zeros(count), 0, 3)], 1.0, "rank 0")

    with pytest.raises(AssertionError, match=f"rank 0 changed a buffer of {8 * count} bytes .* rank 1 with tag 3"):
        Cluster(2).run(program)
    Cluster(2, check_buffers=False).run(program)


def test_a_buffer_is_free_once_it_was_sent() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            buffer = np.zeros(100)
            for value in range(10):
                buffer[:] = value
                endpoint.wait_all([endpoint.send(buffer, 1, 3)], 1.0, "the link")
            return None
        values = []
        for _ in range(10):
            endpoint.charge(nbytes=1e6)  # much later than sent
            incoming = np.zeros(100)
            endpoint.wait_all([endpoint.receive(incoming, 0, 3)], 1.0, "rank 0")
            values.append(incoming[99])
        return values

    assert Cluster(2).run(program)[1] == list(range(10))


@pytest.mark.parametrize(("sent", "expected"), [(100_000, 4), (4, 100_000), (5, 4), (100_000, 100_001)])
@pytest.mark.parametrize("late", [False, True])
def test_wrong_size(sent: int, expected: int, late: bool) -> None:
    def program(endpoint):
        if endpoint.rank == 1:
            endpoint.wait_all([endpoint.send(np.zeros(sent, np.uint8), 0, 1)], 1.0, "rank 0")
            return
        if late:
            endpoint.wait_message(1.0)
        request = endpoint.receive(np.zeros(expected, np.uint8), 1, 1)
        with pytest.raises(ValueError, match=f"receives into {expected} bytes, .* rank 1 with tag 1 has {sent}"):
            endpoint.wait_all([request], 1.0, "rank 1")
        with pytest.raises(ValueError, match="receives into"):
            request.done()

    Cluster(2).run(program)


def test_one_wrong_size_ends_the_wait_for_all() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            requests = [endpoint.receive(np.zeros(1), 1, tag) for tag in (1, 2)]
            with pytest.raises(ValueError, match="has 16"):
                endpoint.wait_all(requests, float("inf"), "rank 1")
        else:
            endpoint.send(np.zeros(2), 0, 2)

    Cluster(2).run(program)


def test_reading_outside_of_a_window() -> None:
    def program(endpoint):
        window = endpoint.window(16)
        for offset, nbytes in ((0, 17), (16, 1), (-1, 4), (9, 8)):
            with pytest.raises(ValueError, match="of rank 1's window of 16 bytes"):
                window.get(np.empty(nbytes, np.uint8), 1, offset)
        with pytest.raises(ValueError, match="rank 2 of 2"):
            window.get(np.empty(1, np.uint8), 2)
        window.free()
        with pytest.raises(ValueError, match="freed"):
            window.get(np.empty(1, np.uint8), 1)

    Cluster(2).run(program)


def test_freeing_a_window_with_reads_under_way() -> None:
    def program(endpoint):
        window = endpoint.window(16)
        window.get(np.empty(16, np.uint8), 1)
        window.free()

    with pytest.raises(AssertionError, match="while 1 gets are under way"):
        Cluster(2).run(program)


def test_wrong_ranks_and_tags() -> None:
    def program(endpoint):
        for peer, tag in ((2, 1), (-1, 1), (0, -1)):
            with pytest.raises(ValueError, match=f"rank {peer}.*expected"):
                endpoint.send(np.zeros(1), peer, tag)
            with pytest.raises(ValueError, match=f"rank {peer}.*expected"):
                endpoint.receive(np.zeros(1), peer, tag)

    Cluster(2).run(program)


def test_different_collectives() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            endpoint.window(8)
        else:
            endpoint.split(0, 0)

    with pytest.raises(AssertionError, match="rank 1 calls split while rank 0 is in window"):
        Cluster(2).run(program)


def test_polling_for_ever_meets_the_time_limit() -> None:
    def program(endpoint):
        while endpoint.probe() is None:
            pass

    with pytest.raises(TimeLimit, match="0.001 s"):
        Cluster(3, time_limit=1e-3).run(program)


def test_arguments_of_a_cluster() -> None:
    with pytest.raises(ValueError, match="0 ranks"):
        Cluster(0)
    with pytest.raises(ValueError, match="rank 2"):
        Cluster(2, speeds={2: 1.0})
    with pytest.raises(ValueError, match="no rank 5"):
        Cluster(2).kill(5, at=0.0)
    used = Cluster(2)
    assert used.run(lambda endpoint, factor: endpoint.rank * factor, 10) == [0, 10]
    with pytest.raises(RuntimeError, match="once"):
        used.run(lambda endpoint: None)


def test_settings_of_the_caller_hold_inside() -> None:
    def program(endpoint):
        endpoint.charge(flops=1.0)
        return np.ones(1) / np.zeros(1)

    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        Cluster(2).run(program)
