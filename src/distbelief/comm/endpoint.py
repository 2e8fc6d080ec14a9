"""The protocol between roles and whatever carries their messages.

A role (coordinator, shard, replica) is plain blocking-style Python over an Endpoint. The same role code runs
on MPI (`comm.mpi`) and in virtual time (`comm.sim`). Buffers are C-contiguous NumPy arrays; nothing is pickled.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

ANY = -1  # any source, any tag


class Envelope(NamedTuple):
    """What a probe tells of a message that has arrived and waits to be received.

    `nbytes` is exact up to 1 GiB; MPI may report 1 GiB for a longer message.
    """

    source: int
    tag: int
    nbytes: int


class DeadlineExpired(RuntimeError):
    """A wait outlived its deadline. The text says which rank waited, how long, and for whom and what."""


class Request(Protocol):
    """A transfer under way. Its buffer belongs to the transport until `done()` is true."""

    def done(self) -> bool:
        """True once the transfer is complete; never blocks. Local."""
        ...


class Window(Protocol):
    """Memory of every rank of an endpoint that the others may read, one-sided."""

    local: np.ndarray
    """This rank's exposed memory: uint8, shape (nbytes,), zero at first, aligned to 64 bytes."""

    def get(self, into: np.ndarray, source: int, offset: int = 0) -> Request:
        """Start reading `into.nbytes` bytes at byte `offset` of rank `source`'s memory. Local.

        The reader may see values from before and after a concurrent update of the owner (torn reads).
        """
        ...

    def memory(self, source: int) -> np.ndarray | None:
        """Rank `source`'s memory itself, uint8, where it lies in this process too; else None: `get` reads it. Local.

        Not to be written to. Reads are torn as those of `get`; `sync` puts them in order.
        """
        ...

    def sync(self) -> None:
        """Make this rank's stores to `local` visible to readers, and order its reads of memory. Local."""
        ...

    def free(self) -> None:
        """Release the memory. Collective over the endpoint."""
        ...


class Endpoint(Protocol):
    """One rank's view of a group of ranks. Times are in seconds."""

    rank: int
    size: int

    def send(self, buffer: np.ndarray, dest: int, tag: int) -> Request:
        """Start sending `buffer`; do not change it until the request is done. Local.

        Messages from one rank to another with one tag are received in the order sent.
        """
        ...

    def receive(self, buffer: np.ndarray, source: int, tag: int) -> Request:
        """Start receiving into `buffer` from exactly `source` and `tag`. Local.

        Raises ValueError (when waited for) if the message that comes is not of `buffer.nbytes` bytes. Do not count
        on it for a message that is longer: Open MPI has been seen to write past the buffer before it says so. Where
        the size is in doubt, look at the envelope first.
        """
        ...

    def probe(self, source: int = ANY, tag: int = ANY) -> Envelope | None:
        """The envelope of the first message that has arrived and fits, or None; never blocks. Local."""
        ...

    def wait_message(self, timeout: float, source: int = ANY, tag: int = ANY) -> Envelope | None:
        """Like probe, but wait up to `timeout` for a message; None if none came. Local."""
        ...

    def wait_any(self, requests: Sequence[Request], timeout: float, what: str) -> int:
        """Wait until one of `requests` is done and return its index. Local.

        `what` says for whom and what ("rank 3 to take push 17"): it ends up in DeadlineExpired, which is
        raised after `timeout`.
        """
        ...

    def wait_all(self, requests: Sequence[Request], timeout: float, what: str) -> None:
        """Wait until all of `requests` are done; DeadlineExpired after `timeout`. Local."""
        ...

    def wait_event(
        self, timeout: float, requests: Sequence[Request] = (), patterns: Sequence[tuple[int, int]] = ()
    ) -> bool:
        """Wait until one of `requests` is done, or a message like one of `patterns` (source, tag) has arrived. Local.

        False if neither came in `timeout`.
        """
        ...

    def window(self, nbytes: int) -> Window:
        """Expose `nbytes` (0 is allowed) of new memory to the other ranks. Collective over the endpoint."""
        ...

    def split(self, color: int | None, key: int) -> "Endpoint | None":
        """A new endpoint over the ranks that name the same `color`, in the order of `key`, then rank.

        None for a rank whose color is None. Collective over the endpoint.
        """
        ...

    def clock(self) -> float:
        """Seconds since some fixed moment; virtual time in the simulator. Local."""
        ...

    def charge(self, flops: float = 0.0, nbytes: float = 0.0) -> None:
        """Account for local work: `flops` operations and `nbytes` of memory traffic. Local.

        Work takes its real time on MPI, where this does nothing; in the simulator virtual time passes.
        """
        ...
