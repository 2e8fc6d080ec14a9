"""What the ring must do on every endpoint: programs for four ranks, like those of `suite`."""

from collections.abc import Callable

import numpy as np

from comm.suite import LONG
from distbelief.comm.endpoint import Endpoint
from distbelief.comm.ring import PIECE, Ring

# Elements: fewer than ranks, blocks of different sizes, several pieces, the last one short.
SIZES = (1, 3, 4, 1001, PIECE // 2 + 5)


def check_sums_of_whole_numbers_are_exact(endpoint: Endpoint) -> None:
    ring = Ring(endpoint, LONG)
    for dtype in (np.float32, np.float64, np.int64):
        for size in SIZES:
            vectors = [np.random.default_rng(rank).integers(-1000, 1000, size) for rank in range(endpoint.size)]
            mine = vectors[endpoint.rank].astype(dtype)
            ring.sum(mine)
            assert np.array_equal(mine, sum(vectors)), (dtype, size)


def check_all_ranks_have_the_same_bits(endpoint: Endpoint) -> None:
    vector = np.random.default_rng(endpoint.rank).standard_normal(20_000).astype(np.float32) ** 3
    Ring(endpoint, LONG).sum(vector)
    told = np.empty_like(vector)
    right, left = (endpoint.rank + 1) % endpoint.size, (endpoint.rank - 1) % endpoint.size
    requests = [endpoint.send(vector, right, 7), endpoint.receive(told, left, 7)]
    endpoint.wait_all(requests, LONG, "its neighbours")
    assert np.array_equal(told.view(np.uint32), vector.view(np.uint32))


def check_sums_follow_each_other(endpoint: Endpoint) -> None:
    """However late one rank comes, no message of one sum is taken for another's."""
    ring = Ring(endpoint, LONG)
    for number in range(30):
        if number % endpoint.size == endpoint.rank:
            endpoint.wait_message(0.002, tag=99)
        vector = np.full(10 + 7 * number, float(number + endpoint.rank))
        ring.sum(vector)
        assert (vector == endpoint.size * number + sum(range(endpoint.size))).all(), number


CHECKS: dict[str, Callable[[Endpoint], None]] = {
    check.__name__: check
    for check in (
        check_sums_of_whole_numbers_are_exact,
        check_all_ranks_have_the_same_bits,
        check_sums_follow_each_other,
    )
}
