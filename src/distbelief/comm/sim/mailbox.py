"""Matching of messages and receives at one rank of one group."""

from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from distbelief.comm.sim.request import SimRequest

if TYPE_CHECKING:
    from distbelief.comm.sim.message import Message


class Receive(NamedTuple):
    """A posted receive: where the payload goes, and whom to tell."""

    into: np.ndarray
    """uint8, shape (nbytes,)."""
    request: SimRequest


class Mailbox:
    """Messages that have arrived and wait for a receive, and receives that wait for a message.

    A message is filed under the four patterns a probe can name it by, each in order of arrival: so probe,
    match and removal take the same time however many messages wait.
    """

    def __init__(self) -> None:
        self._arrived: defaultdict[tuple[int, int], OrderedDict[int, Message]] = defaultdict(OrderedDict)
        self._posted: defaultdict[tuple[int, int], deque[Receive]] = defaultdict(deque)
        self._count = 0
        self.wanted: frozenset[tuple[int, int]] = frozenset()
        """The patterns (source, tag) that the rank is blocked on."""

    def first(self, source: int, tag: int) -> "Message | None":
        """The first message that fits; ANY fits all."""
        fitting = self._arrived.get((source, tag))
        return next(iter(fitting.values())) if fitting else None

    def arrive(self, message: "Message") -> Receive | None:
        """Take in a message: the receive that was posted for it, if any; else the message is filed."""
        posted = self._posted.get((message.source, message.tag))
        if posted:
            return posted.popleft()
        self._count += 1
        message.number = self._count
        for pattern in message.patterns:
            self._arrived[pattern][message.number] = message
        return None

    def post(self, source: int, tag: int, receive: Receive) -> "Message | None":
        """Take in a receive: the first message that fits, now no longer filed; else the receive is kept."""
        message = self.first(source, tag)
        if message is None:
            self._posted[source, tag].append(receive)
            return None
        for pattern in message.patterns:
            del self._arrived[pattern][message.number]
        return message

    def wants(self, message: "Message") -> bool:
        """Whether the rank is blocked in a wait that fits."""
        return not self.wanted.isdisjoint(message.patterns)
