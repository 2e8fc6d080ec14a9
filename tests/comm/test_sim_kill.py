"""Deaths in the simulator, as `Cluster.kill` promises them."""

import numpy as np
import pytest

from distbelief.comm.endpoint import DeadlineExpired
from distbelief.comm.sim import Cluster, Deadlock


def test_the_dead_go_silently_and_the_others_on() -> None:
    unwound = []

    def program(endpoint):
        try:
            for _ in range(10):
                endpoint.charge(nbytes=10e9)
        finally:
            unwound.append((endpoint.rank, endpoint.clock()))
            endpoint.send(np.zeros(1), 0, 1)  # the dead cannot communicate
        return endpoint.rank

    cluster = Cluster(3)
    cluster.kill(1, at=4.5)
    assert cluster.run(program) == [0, None, 2]
    assert unwound == [(1, 4.5), (0, 10.0), (2, 10.0)]
    assert cluster.now == 10.0


def test_nothing_comes_to_or_from_the_dead() -> None:
    def program(endpoint):
        window = endpoint.window(8)
        if endpoint.rank == 1:
            endpoint.wait_message(10.0, 0, 9)
            raise AssertionError("the dead do not wake")
        endpoint.charge(nbytes=20e9)  # until after the death
        small, large = endpoint.send(np.zeros(1), 1, 9), endpoint.send(np.zeros(10_000), 1, 9)
        read, answer = window.get(np.zeros(8, np.uint8), 1), endpoint.receive(np.zeros(1), 1, 9)
        endpoint.wait_all([small], 1.0, "the link")  # a small message leaves, whoever is there to take it
        for request, what in ((large, "take"), (read, "be read"), (answer, "answer")):
            with pytest.raises(DeadlineExpired, match=f"rank 0 waited 0.5 s for rank 1 to {what}"):
                endpoint.wait_all([request], 0.5, f"rank 1 to {what}")
        return endpoint.clock()

    cluster = Cluster(2)
    cluster.kill(1, at=1.0)
    assert cluster.run(program) == [pytest.approx(3.5, abs=1e-4), None]


@pytest.mark.parametrize(("death", "arrives"), [(0.9e-6, False), (1.1e-6, True)])
def test_what_has_left_before_the_death_arrives(death: float, arrives: bool) -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            endpoint.send(np.zeros(1000, np.uint8), 1, 1)  # one microsecond on the link
            endpoint.charge(nbytes=10e9)
        else:
            return endpoint.wait_message(1.0) is not None

    cluster = Cluster(2, bandwidth=1e9)
    cluster.kill(0, at=death)
    assert cluster.run(program)[1] is arrives


@pytest.mark.parametrize(("death", "arrives"), [(0.5e-3, False), (1.0025e-3, True)])
@pytest.mark.parametrize("one_sided", [False, True])
def test_death_in_the_middle_of_a_long_transfer(death: float, arrives: bool, one_sided: bool) -> None:
    def program(endpoint):
        window = endpoint.window(1_000_000)
        into = np.zeros(1_000_000, np.uint8)
        if endpoint.rank == 0:
            request = window.get(into, 1) if one_sided else endpoint.receive(into, 1, 1)
            try:
                endpoint.wait_all([request], 1.0, "rank 1")
            except DeadlineExpired:
                return False
            return True
        if not one_sided:
            endpoint.send(into, 0, 1)
        endpoint.charge(nbytes=10e9)

    cluster = Cluster(2, bandwidth=1e9, latency=0.5e-6)
    cluster.kill(1, at=death)
    assert cluster.run(program)[0] is arrives


def test_killed_at_the_start_and_after_the_end() -> None:
    cluster = Cluster(3)
    cluster.kill(0, at=0.0)
    cluster.kill(2, at=5.0)
    assert cluster.run(lambda endpoint: endpoint.rank) == [None, 1, 2]
    assert cluster.now == 0.0


def test_a_collective_with_the_dead_is_a_deadlock() -> None:
    def program(endpoint):
        endpoint.charge(nbytes=10e9)
        endpoint.split(0, 0)

    cluster = Cluster(3)
    cluster.kill(2, at=0.25)
    with pytest.raises(Deadlock, match="(?s)rank 0 has waited.*rank 1 has waited.*rank 2 was killed at 0.250000000 s"):
        cluster.run(program)


def test_a_program_may_kill() -> None:
    cluster = Cluster(2)

    def program(endpoint):
        endpoint.charge(nbytes=10e9)
        if endpoint.rank == 0:
            cluster.kill(1, at=0.0)  # past: now
        endpoint.charge(nbytes=10e9)
        return endpoint.clock()

    assert cluster.run(program) == [2.0, None]
