"""Requests, and how a rank waits for them."""

from collections.abc import Sequence

import numpy as np

from distbelief.comm.sim.process import LOOK, Process


class SimRequest:
    """A transfer under way; its owner is the only rank that may look at it."""

    __slots__ = ("_error", "_owner", "_waiting", "complete")

    def __init__(self, owner: Process) -> None:
        self.complete = False
        self._owner = owner
        self._error: Exception | None = None
        self._waiting = False

    def done(self) -> bool:
        """True once the transfer is complete; costs one LOOK of virtual time. Local.

        Raises ValueError if a received message has another size than the buffer.
        """
        self._owner.sleep(LOOK)
        return self.checked()

    def checked(self) -> bool:
        """Like `done`, but free."""
        if self._error is not None:
            raise self._error
        return self.complete

    def finish(self, error: Exception | None = None) -> None:
        """Complete the transfer now, well or with an error for its owner."""
        self.complete = True
        self._error = error
        if self._waiting:
            self._waiting = False
            self._owner.notify(enough=error is not None)

    def watch(self) -> bool:
        """Have the owner notified of the end. False if it is complete or already watched."""
        if self.complete or self._waiting:
            return False
        self._waiting = True
        return True

    def unwatch(self) -> None:
        """Take `watch` back."""
        self._waiting = False


def wait(process: Process, requests: Sequence[SimRequest], timeout: float, what: str, everything: bool) -> bool:
    """Block `process` until one of (or `everything` in) `requests` is complete; False after `timeout` seconds.

    Raises the error of a request that failed.
    """
    deadline = process.machine.queue.now + timeout
    process.sleep(LOOK)
    complete = [request.checked() for request in requests]
    if all(complete) if everything else any(complete):
        return True
    return wait_watching(process, requests, deadline, what, everything)


def wait_watching(
    process: Process, requests: Sequence[SimRequest], deadline: float, what: str, everything: bool = False
) -> bool:
    """Block `process` until one of (or `everything` in) `requests`, all incomplete as yet, ends or it is notified."""
    watched = [request for request in requests if request.watch()]
    in_time = process.block(what, deadline, needed=len(watched) if everything else 1)
    for request in watched:
        request.unwatch()
    for request in requests:
        request.checked()
    return in_time


def flat_bytes(buffer: np.ndarray) -> np.ndarray:
    """The memory of `buffer` as uint8, shape (nbytes,). Raises ValueError unless C-contiguous."""
    if not buffer.flags.c_contiguous:
        raise ValueError(f"a buffer must be C-contiguous; this one has shape {buffer.shape}, strides {buffer.strides}")
    # Twice as fast as `view`, which looks into the fields of a record; but it takes no buffer of nothing.
    return np.frombuffer(buffer, np.uint8) if buffer.nbytes else np.empty(0, np.uint8)


def flat_writable(buffer: np.ndarray) -> np.ndarray:
    """Like `flat_bytes`, for a buffer to be filled. Raises ValueError if it is read-only, too."""
    if not buffer.flags.writeable:
        raise ValueError("a buffer to receive into is read-only")
    return flat_bytes(buffer)
