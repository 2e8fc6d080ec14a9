"""What every endpoint must do, continued: waiting for requests and messages at once. See `suite`."""

from collections.abc import Callable

import numpy as np

from comm.suite import LONG, SHORT, await_signal, give, signal, take
from distbelief.comm.endpoint import ANY, Endpoint


def check_either_kind_of_event(endpoint: Endpoint) -> None:
    """Rank 1 sends what rank 0 has posted a receive for, rank 2 what rank 0 only wants to hear of."""
    if endpoint.rank == 0:
        into = np.zeros(3)
        request = endpoint.receive(into, 1, 5)
        patterns = [(ANY, 6), (2, 7)]
        assert not endpoint.wait_event(SHORT, [request], patterns)
        signal(endpoint, 2, 1)
        assert endpoint.wait_event(LONG, [request], patterns) and not request.done()
        assert endpoint.wait_event(LONG, [request], patterns)  # it is still there
        take(endpoint, np.empty(1), 2, 7)
        signal(endpoint, 1, 1)
        assert endpoint.wait_event(LONG, [request], patterns) and request.done()
        assert (into == 9).all()
        assert not endpoint.wait_event(0.0, [], patterns)
    elif endpoint.rank == 1:
        await_signal(endpoint, 0, 1)
        give(endpoint, np.full(3, 9.0), 0, 5)
    elif endpoint.rank == 2:
        await_signal(endpoint, 0, 1)
        give(endpoint, np.ones(1), 0, 7)


def check_other_messages_wake_nobody(endpoint: Endpoint) -> None:
    if endpoint.rank == 0:
        signal(endpoint, 1, 1)
        started = endpoint.clock()
        assert not endpoint.wait_event(SHORT, [], [(1, 6), (2, ANY)])
        assert endpoint.clock() - started >= SHORT
        take(endpoint, np.empty(1), 1, 5)
    elif endpoint.rank == 1:
        await_signal(endpoint, 0, 1)
        give(endpoint, np.ones(1), 0, 5)


CHECKS: dict[str, Callable[[Endpoint], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
