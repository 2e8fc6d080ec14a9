"""What has been fetched becomes the replica's parameters: from buffers, straight from the wire, or from where it lies.

The client's invariant (server.client) is kept here: of the replica's own gradients, those that the values do not yet
hold are taken off.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from distbelief.comm.endpoint import DeadlineExpired, Endpoint
from distbelief.kernels import renew, sgd
from distbelief.server import held
from distbelief.server.fetch import PAUSE, Fetch, Reader
from distbelief.server.messages import NOTHING
from distbelief.server.near import Near
from distbelief.server.pieces import Piece, side_by_side
from distbelief.server.push import Push


class Installer:
    """Of one client. All methods are Local.

    seconds: spent waiting for values, and copying those that lie here.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        reader: Reader,
        pieces: Sequence[Piece],
        pushes: Sequence[Push],
        client: int,
        past: bool,
        timeout: float,
    ):
        """`pushes`: the client's own list, of those that values may lack; `client`: its number; `past`: whether its
        vectors are larger than what the caches hold: no layer finds its own there."""
        self.seconds = 0.0
        self._endpoint = endpoint
        self._reader = reader
        self._pieces = pieces
        self._runs = side_by_side(pieces, range(len(pieces)))  # of all
        self._pushes = pushes
        self._client = client
        self._past = past
        self._timeout = timeout

    def install(
        self,
        fetch: Fetch,
        parameters: np.ndarray,
        accrued: np.ndarray | None,
        rate: float,
        numbers: Iterable[int] | None,
        wait: bool,
    ) -> list[int]:
        """See Client.install."""
        wanted, installed = fetch.missing_among(numbers), []
        if not rate or (accrued is None and not self._pushes):  # nothing can be lacking
            installed = self._read_straight(fetch, wanted, parameters, wait)
        for number in fetch.missing_among(wanted):
            if (near := fetch.near(number)) is not None:
                self._install_near(fetch, near, [number], parameters, accrued, rate)
                installed.append(number)
                continue
            if wait:
                self._wait_for_piece(fetch, number)
            if wait or self._ready(fetch, number):
                self._install(fetch, number, parameters, accrued, rate)
                installed.append(number)
        return installed

    def own_marks(self, number: int) -> list[int]:
        """The marks at which pushes that may be on their way hold a piece."""
        return [int(push.marks[number]) for push in self._pushes]

    def _read_straight(self, fetch: Fetch, wanted: Sequence[int], parameters: np.ndarray, wait: bool) -> list[int]:
        """Read pieces straight to where they belong, as many as can be; returns their numbers."""
        if self._reader.all_near and fetch.untouched and len(wanted) == len(self._pieces):
            # A look at each piece takes a fiftieth of such a fetch: what it looks at is in no cache.
            runs = self._runs
        else:
            read = [
                number
                for number in wanted
                if fetch.near(number)
                or (not fetch.asked_for(number) and self._reader.straight(number, parameters.dtype, wait))
            ]
            runs = side_by_side(self._pieces, read)
        for run in runs:
            if (near := fetch.near(run[0])) is not None:
                self._install_near(fetch, near, run, parameters, None, 0.0)
            else:
                self.seconds += fetch.read(run, self._place(run, parameters), self._timeout)
        return [number for run in runs for number in run]

    def _install(self, fetch: Fetch, number: int, parameters, accrued, rate: float) -> None:
        """Install a piece that is there."""
        values, mark = fetch.take(number)
        lacking = self._lacking(number, mark, accrued, rate)
        self._renew(values, self._place([number], parameters), lacking, rate)
        self._reader.give_back(values)

    def _install_near(self, fetch: Fetch, near: Near, run: list[int], parameters, accrued, rate: float) -> None:
        """Install pieces that lie side by side from where they are; several only where nothing can be lacking.

        One is installed once more if meanwhile the shard was about to apply it from one of our pushes.
        """
        began = self._endpoint.clock()
        number, client, own = run[0], self._client, self.own_marks(run[0]) if rate else []
        values, here = near.values(self._pieces[number].start, self._pieces[run[-1]].stop), self._place(run, parameters)
        while True:
            mark = near.applied(client) if own else 0
            self._renew(values, here, self._lacking(number, mark, accrued, rate), rate)
            if not own or not near.torn(client, mark, own):
                break
            if self._endpoint.clock() - began > self._timeout:
                raise DeadlineExpired(
                    f"rank {self._endpoint.rank} waited {self._timeout:g} s for {fetch.shard_of(number)} to be "
                    "through with an update"
                )
            self._endpoint.wait_message(PAUSE, tag=NOTHING)  # it only lets time pass
        fetch.took(run, values.nbytes)
        self.seconds += self._endpoint.clock() - began

    def _place(self, run: list[int], vector: np.ndarray) -> np.ndarray:
        """Of a vector of ours, the pieces of `run`, which lie side by side: a view."""
        first, last = self._pieces[run[0]], self._pieces[run[-1]]
        return vector[first.offset : last.offset + last.size]

    def _lacking(self, number: int, mark: int, accrued: np.ndarray | None, rate: float) -> list[np.ndarray]:
        """Of a piece, the gradients of ours that its values, which stand for `mark`, do not hold."""
        if not rate:
            return []
        piece = self._pieces[number]
        lacking = [piece.of(push.gradient) for push in self._pushes if not 0 < push.marks[number] <= mark]
        return lacking + ([] if accrued is None else [piece.of(accrued)])

    def _renew(self, values: np.ndarray, here: np.ndarray, lacking: list[np.ndarray], rate: float) -> None:
        """Parameters `here` = values - rate * the sum of `lacking`."""
        if here.dtype == held.BFLOAT16:
            held.install(values, lacking, rate, here, self._past)
            return
        # One pass for the first that is lacking; often there is no other.
        renew(values, here, lacking.pop() if lacking else None, rate, self._past)
        for gradient in lacking:
            sgd(here, gradient, rate)

    def _wait_for_piece(self, fetch: Fetch, number: int) -> None:
        began = self._endpoint.clock()
        fetch.wait(number, self._timeout)
        self.seconds += self._endpoint.clock() - began

    def _ready(self, fetch: Fetch, number: int) -> bool:
        began = self._endpoint.clock()
        ready = fetch.ready(number)
        self.seconds += self._endpoint.clock() - began
        return ready
