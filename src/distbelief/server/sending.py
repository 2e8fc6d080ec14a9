"""The pieces of a push on their way to the shards: as messages, or left where shards of the same node find them."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from distbelief.comm.endpoint import Endpoint, Window
from distbelief.server.messages import GRADIENT, HEADER, LYING, PUSH, payload_tag, record
from distbelief.server.near import Near
from distbelief.server.pieces import Piece
from distbelief.server.push import Push
from distbelief.server.rounding import Rounding


class Sender:
    """Of one client. All methods are Local.

    bytes: that have been sent, headers and payloads.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        window: Window,
        shards: Sequence[int],
        pieces: Sequence[Piece],
        client: int,
        rounding: Rounding | None,
        near: Callable[[int], Near | None],
    ):
        """`shards`: the rank of each; `client`: its number; `rounding`: None if gradients leave as they are; `near`:
        the shard of a piece, by its number, if its memory lies here."""
        self.bytes = 0
        self._endpoint = endpoint
        self._window = window
        self._shards = shards
        self._pieces = pieces
        self._client = client
        self._rounding = rounding
        self._near = near
        self._sent = np.zeros(len(shards), np.int64)  # pieces of all pushes so far: the shards' marks to come

    def send(self, push: Push, number: int) -> None:
        """See Client.send."""
        piece, rounding = self._pieces[number], self._rounding
        payload, place = piece.of(push.gradient), None
        if rounding is not None:
            payload, place = rounding.piece(number, push.gradient)
        near = None if place is None else self._near(number)
        mark = self._sent[piece.shard] = self._sent[piece.shard] + 1
        header = record(
            HEADER,
            kind=GRADIENT if near is None else LYING,
            client=self._client,
            sequence=push.sequence,
            count=push.counts[piece.shard],
            clock=push.clock,
            start=piece.start,
            stop=piece.stop,
            nbytes=payload.nbytes,
            mark=mark,
            last=push.note(number, piece, mark),
            place=place or 0,
        )
        rank = self._shards[piece.shard]
        if near is not None:
            self._window.sync()  # the shard finds there what the header tells of
        push.requests.append(self._endpoint.send(header, rank, PUSH))
        if near is None:
            push.requests.append(self._endpoint.send(payload, rank, payload_tag(mark)))
        if rounding is not None:
            rounding.leaves(number, push.requests[-1].done if near is None else partial(self._has_applied, near, mark))
        self.bytes += payload.nbytes + HEADER.itemsize

    def _has_applied(self, near: Near, mark: int) -> bool:
        return near.applied(self._client) >= mark
