"""The event log of a simulated cluster."""

from typing import TextIO

from distbelief.comm.sim.events import EventQueue


class Journal:
    """Writes one line per event; the same seed and program write the same bytes.

    Columns: virtual time in seconds, rank (of the whole cluster), kind, peer (likewise), tag, bytes, group
    (0 is the whole cluster, later ones are numbered as they are split off); "-" where a kind has no such value.

        charge    work of the rank began                   send      a message was posted
        sent      the sender's request is done             arrive    an envelope became visible
        deliver   the payload is in the receive buffer     lost      a message or request met a dead rank
        get       a one-sided read was started             got       its data has come
        window, free, split   the rank entered a collective call
        timeout   a wait expired                           kill, end the rank died, or its program returned
    """

    def __init__(self, stream: TextIO | None, queue: EventQueue) -> None:
        self.silent = stream is None
        self._stream = stream
        self._queue = queue

    def write(
        self,
        rank: int,
        kind: str,
        peer: int | str = "-",
        tag: int | str = "-",
        nbytes: int | str = "-",
        group: int | str = "-",
    ) -> None:
        """Note an event of this moment."""
        if self._stream is not None:
            self._stream.write(f"{self._queue.now:.9f} {rank} {kind} {peer} {tag} {nbytes} {group}\n")
