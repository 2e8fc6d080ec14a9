"""Same seed, same log, to the byte."""

import io

import numpy as np

from distbelief.comm.endpoint import Endpoint
from distbelief.comm.sim import Cluster

GOLDEN = """\
0.000000000 0 send 1 7 1000 0
0.000000000 1 charge - - 500 0
0.000000100 0 sent 1 7 1000 0
0.000001100 1 arrive 0 7 1000 0
0.000001100 1 deliver 0 7 1000 0
0.000001100 1 send 0 8 40000 0
0.000002100 0 arrive 1 8 40000 0
0.000008100 1 sent 0 8 40000 0
0.000008100 0 deliver 1 8 40000 0
0.000008100 1 end - - - -
0.000008100 0 end - - - -
"""


def traffic(endpoint: Endpoint) -> None:
    """A parameter server in miniature: ranks 0 and 1 serve, the others read, compute and push."""
    servers, rounds = 2, 5
    window = endpoint.window(800)
    payload = np.zeros(1000)
    if endpoint.rank < servers:
        for _ in range(rounds * (endpoint.size - servers)):
            envelope = endpoint.wait_message(1.0)
            endpoint.wait_all([endpoint.receive(payload, envelope.source, envelope.tag)], 1.0, "a push")
            window.local.view(np.float64)[:] += 1
            endpoint.charge(nbytes=8000)
    else:
        parameters = np.zeros(100)
        for index in range(rounds):
            endpoint.wait_all([window.get(parameters, index % servers)], 1.0, "parameters")
            endpoint.charge(flops=1e5)
            endpoint.wait_all([endpoint.send(payload, server, index) for server in range(servers)], 1.0, "servers")


def log_of(size: int = 9, **changes) -> str:
    log = io.StringIO()
    Cluster(size, **{"jitter": 0.3, "seed": 5, "log": log, **changes}).run(traffic)
    return log.getvalue()


def test_same_seed_same_log() -> None:
    first = log_of()
    assert first.count("\n") > 300
    assert first == log_of()


def test_same_seed_same_log_with_kill_and_straggler() -> None:
    def killed() -> str:
        log = io.StringIO()
        cluster = Cluster(9, jitter=0.3, speeds={4: 0.01}, log=log)
        cluster.kill(7, at=40e-6)
        cluster.run(patient)
        return log.getvalue()

    def patient(endpoint):
        while endpoint.clock() < 1e-3:
            request = endpoint.send(np.zeros(10), (endpoint.rank * 3 + 1) % 9, 1)
            if (envelope := endpoint.wait_message(1e-5)) is not None:
                endpoint.receive(np.zeros(10), envelope.source, envelope.tag)
            endpoint.charge(flops=1e5)
            endpoint.wait_all([request], 1.0, "the link")

    first = killed()
    assert " 7 kill " in first and " lost " in first
    assert first == killed()


def test_another_seed_another_log() -> None:
    assert log_of() != log_of(seed=6)


def test_without_noise_the_seed_does_not_matter() -> None:
    assert log_of(jitter=0.0, seed=1) == log_of(jitter=0.0, seed=2)


def test_checking_buffers_changes_no_time() -> None:
    assert log_of() == log_of(check_buffers=False)


def test_time_never_runs_backwards() -> None:
    times = [float(line.split()[0]) for line in log_of().splitlines()]
    assert times == sorted(times)


def test_golden_log() -> None:
    def program(endpoint):
        if endpoint.rank == 0:
            request = endpoint.send(np.zeros(1000, np.uint8), 1, 7)
            incoming = endpoint.receive(np.zeros(40_000, np.uint8), 1, 8)
            endpoint.wait_all([request, incoming], 1.0, "rank 1")
        else:
            endpoint.charge(nbytes=500)
            endpoint.wait_all([endpoint.receive(np.zeros(1000, np.uint8), 0, 7)], 1.0, "rank 0")
            endpoint.wait_all([endpoint.send(np.zeros(40_000, np.uint8), 0, 8)], 1.0, "rank 0")

    log = io.StringIO()
    Cluster(2, log=log).run(program)
    assert log.getvalue() == GOLDEN
