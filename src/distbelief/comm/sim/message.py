"""The life of one message, from `send` to the receive buffer.

Up to EAGER_LIMIT bytes the payload travels with the envelope, and the sender is done when the last byte has left:

    send --transfer--> arrive --(matching receive)--> deliver

A longer one is a rendezvous, as in real MPI. The envelope goes ahead; once it has met its receive the receiver
answers, and only then the payload moves. Sender and receiver are done together:

    send --latency--> arrive --(matching receive)--latency--> clear --transfer--> deliver
"""

import numpy as np

from distbelief.comm.endpoint import ANY, Envelope
from distbelief.comm.sim.group import Group
from distbelief.comm.sim.links import EAGER_LIMIT
from distbelief.comm.sim.mailbox import Receive
from distbelief.comm.sim.request import SimRequest


class Message:
    """One message; `source` and `dest` are ranks of `group`."""

    def __init__(self, group: Group, source: int, dest: int, tag: int, buffer: np.ndarray) -> None:
        self.source = source
        self.dest = dest
        self.tag = tag
        self.nbytes = buffer.nbytes
        self.number = 0
        """Given by the mailbox, in order of arrival."""
        self.patterns = (source, tag), (source, ANY), (ANY, tag), (ANY, ANY)
        """What a probe can name it by."""
        self._group = group
        self._machine = group.machine
        self._sender = group.processes[source]
        self._receiver = group.processes[dest]
        self._mailbox = group.mailboxes[dest]
        self._eager = buffer.nbytes <= EAGER_LIMIT
        self._left = 0.0
        self._buffer = buffer
        # Eager payloads need a copy anyway: the sender has its buffer back before they arrive.
        self._payload = buffer.copy() if self._eager or self._machine.check_buffers else buffer
        self.request = SimRequest(self._sender)

    def envelope(self) -> Envelope:
        """What a probe tells of the message."""
        return Envelope(self.source, self.tag, self.nbytes)

    def start(self) -> None:
        """Let the envelope, and a small payload with it, leave now."""
        queue, links = self._machine.queue, self._machine.links
        source, dest = self._sender.rank, self._receiver.rank
        self._write("send", self._sender.rank, self._receiver.rank)
        if self._eager:
            self._left, arrival = links.transfer(source, dest, self.nbytes, queue.now)
            queue.at(self._left, self._sent)
        else:
            arrival = queue.now + links.delay(source, dest)
        queue.at(links.in_order(source, dest, arrival), self._arrive)

    def match(self, receive: Receive) -> None:
        """Go on into the receive that was posted for this message."""
        if receive.into.size != self.nbytes:
            receive.request.finish(
                ValueError(
                    f"rank {self.dest} receives into {receive.into.size} bytes, but the message from rank "
                    f"{self.source} with tag {self.tag} has {self.nbytes}"
                )
            )
            # The sender is not to blame: its message counts as taken.
            if not self._eager:
                self._sent()
        elif self._eager:
            self._deliver(receive)
        else:
            delay = self._machine.links.delay(self._receiver.rank, self._sender.rank)
            self._machine.queue.at(self._machine.queue.now + delay, self._clear, receive)

    def _arrive(self) -> None:
        gone = self._eager and not self._sender.was_alive(self._left)
        if gone or self._receiver.died_at is not None:
            self._write("lost", self._receiver.rank, self._sender.rank)
            return
        self._write("arrive", self._receiver.rank, self._sender.rank)
        receive = self._mailbox.arrive(self)
        if receive is not None:
            self.match(receive)
        elif self._mailbox.wants(self):
            self._mailbox.wanted = frozenset()
            self._receiver.notify()

    def _clear(self, receive: Receive) -> None:
        if self._sender.died_at is not None:
            self._write("lost", self._sender.rank, self._receiver.rank)
            return
        queue = self._machine.queue
        transfer = self._machine.links.transfer(self._sender.rank, self._receiver.rank, self.nbytes, queue.now)
        self._left = transfer.left
        queue.at(transfer.arrival, self._deliver_and_release, receive)

    def _deliver_and_release(self, receive: Receive) -> None:
        if self._receiver.died_at is not None or not self._sender.was_alive(self._left):
            self._write("lost", self._receiver.rank, self._sender.rank)
            return
        self._sent()
        self._deliver(receive)

    def _deliver(self, receive: Receive) -> None:
        self._write("deliver", self._receiver.rank, self._sender.rank)
        receive.into[:] = self._payload
        receive.request.finish()

    def _sent(self) -> None:
        if self._sender.died_at is not None:
            return
        if self._machine.check_buffers and (self._buffer != self._payload).any():
            raise AssertionError(
                f"rank {self.source} changed a buffer of {self.nbytes} bytes before it was sent to rank {self.dest} "
                f"with tag {self.tag} (virtual time {self._machine.queue.now:.9f} s)"
            )
        self._write("sent", self._sender.rank, self._receiver.rank)
        self.request.finish()

    def _write(self, kind: str, rank: int, peer: int) -> None:
        if not self._machine.journal.silent:
            self._machine.journal.write(rank, kind, peer, self.tag, self.nbytes, self._group.number)
