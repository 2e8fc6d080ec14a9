"""The coordinator of Sandblaster: it runs the batch method, and sees no number of a vector."""

from collections.abc import Callable, Mapping, Sequence

from distbelief.algorithms.coordination import END, GIVE_UP, LEAVE, ORDER, ORDER_RECORD, TICK
from distbelief.algorithms.loop import Part, serve
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.sandblaster.accounts import Accounts
from distbelief.algorithms.sandblaster.dispatcher import Dispatcher
from distbelief.algorithms.sandblaster.messages import ASSIGN, SCORE, TEST
from distbelief.algorithms.sandblaster.portions import Portions
from distbelief.algorithms.sandblaster.settings import Sharing
from distbelief.algorithms.sandblaster.space import ShardedSpace
from distbelief.comm.endpoint import Endpoint, Request
from distbelief.optim.space import GRADIENT, Fill, scale
from distbelief.server.messages import record


class Pulse:
    """The part of the coordinator's loop that tells the other ranks now and then that it lives, and when to leave."""

    tags = ()
    finished = False

    def __init__(self, endpoint: Endpoint, timeout: float):
        self._endpoint = endpoint
        self._timeout = timeout
        self._others = [rank for rank in range(endpoint.size) if rank != endpoint.rank]
        self._ticked = endpoint.clock()
        self._sending: list[Request] = []

    def work(self) -> float:
        silence = self._endpoint.clock() - self._ticked
        if silence >= self._timeout / 4:
            self.order(TICK)
            silence = 0.0
        return self._timeout / 4 - silence

    def order(self, kind: int) -> None:
        """Tell all other ranks."""
        self._ticked = self._endpoint.clock()
        self._sending = [request for request in self._sending if not request.done()]
        self._sending += [self._endpoint.send(record(ORDER_RECORD, kind=kind), rank, ORDER) for rank in self._others]


class Coordinator:
    """Blocking code over the loop of its rank, which serves the shard beside it meanwhile. All methods are Local."""

    def __init__(
        self,
        endpoint: Endpoint,
        roles: Roles,
        names: Sequence[str],
        sharing: Sharing,
        portions: Mapping[int, Portions],
        timeout: float,
        beside: Sequence[Part] = (),
    ):
        """`names`: of the vectors on the shards; `portions`: by kind of work (messages: ASSIGN, SCORE, TEST).

        `beside`: the other parts of this rank's loop.
        """
        self._endpoint = endpoint
        self._portions = portions
        self._strangers = roles.cut is not None
        self.space = ShardedSpace(endpoint, roles.shards, names, timeout, self._wait)
        self._dispatcher = Dispatcher(
            endpoint,
            roles.replicas,
            roles.shards,
            self.space,
            timeout,
            self._wait,
            backup=sharing.backup,
            ship_every=sharing.ship_every,
            shipments=sharing.shipments,
        )
        self._pulse = Pulse(endpoint, timeout)
        self.parts: list[Part] = [self.space, self._dispatcher, self._pulse, *beside]
        """Of this rank's loop."""
        self.accounts: Accounts | None = None
        """Of the latest evaluation."""

    def evaluate(self, batch: Sequence[int]) -> float:
        """The mean loss over the portions `batch` at PARAMETERS, its gradient in GRADIENT. NaN if not finite."""
        self.space.post([Fill(GRADIENT, 0.0)])
        loss, self.accounts = self._dispatcher.evaluate(self._portions[ASSIGN], batch, self.space.point)
        self.space.post([scale(GRADIENT, 1 / self.accounts.examples)])
        return loss / self.accounts.examples

    def score(self) -> tuple[float, float | None]:
        """Mean loss and accuracy over the held-out examples at PARAMETERS."""
        return self._dispatcher.score(SCORE, self._portions[SCORE], self.space.point)

    def test(self) -> tuple[float, float | None]:
        """The same over the test examples."""
        return self._dispatcher.score(TEST, self._portions[TEST], self.space.point)

    def dismiss(self, failed: bool) -> bool:
        """Let all other ranks go; returns whether all of them are there to enter a collective call."""
        complete = self._dispatcher.roll_call()
        self._pulse.order((GIVE_UP if failed else END) if complete else LEAVE)
        return complete

    def _wait(self, until: Callable[[], bool]) -> None:
        serve(self._endpoint, self.parts, until, self._strangers)
