"""The loop of a rank that serves: it hands each message that arrives to the part that it is for."""

from collections.abc import Callable, Sequence
from typing import Protocol

from distbelief.comm.endpoint import ANY, Endpoint, Envelope

# A rank with work to do hears so many messages between two pieces of it.
HEAR = 16


class Part(Protocol):
    """A role, or a piece of one, on a rank that serves.

    It may have `strays`: tags of messages that should have come with others, which it takes where one turns up alone.
    """

    tags: tuple[int, ...]
    finished: bool

    def take(self, envelope: Envelope) -> None:
        """Handle a message with one of `tags` that has arrived."""
        ...

    def work(self) -> float:
        """Do a small piece of work; returns the seconds until there may be more (0: at once)."""
        ...


def serve(
    endpoint: Endpoint, parts: Sequence[Part], until: Callable[[], bool] | None = None, strangers: bool = False
) -> None:
    """Run `parts` on this rank until one of them has finished, or until `until()`. Local; raises what they raise.

    With `until`, blocking code can wait for something while its rank goes on serving. `strangers`: messages with tags
    of no part may come, for blocking code within a part (partition.Peers); they wait for it. Else they are a mistake.
    """
    by_tag = {tag: part for part in parts for tag in part.tags}
    following = _ours(endpoint, list(by_tag)) if strangers else _any(endpoint)
    by_tag |= {tag: part for part in parts for tag in getattr(part, "strays", ())}
    while not (until() if until else any(part.finished for part in parts)):
        rest = min(part.work() for part in parts)
        envelope = following(rest)
        for _ in range(1 if rest > 0 else HEAR):
            if envelope is None:
                break
            if envelope.tag not in by_tag:
                raise RuntimeError(f"rank {endpoint.rank}: unknown tag {envelope.tag} from rank {envelope.source}")
            by_tag[envelope.tag].take(envelope)
            envelope = following(0.0) if rest == 0 else None


Following = Callable[[float], Envelope | None]
"""The next message that is there; it waits so many seconds for one."""


def _any(endpoint: Endpoint) -> Following:
    return lambda rest: endpoint.wait_message(rest) if rest > 0 else endpoint.probe()


def _ours(endpoint: Endpoint, tags: Sequence[int]) -> Following:
    def following(rest: float) -> Envelope | None:
        if rest > 0:
            endpoint.wait_event(rest, patterns=[(ANY, tag) for tag in tags])
        found = (endpoint.probe(tag=tag) for tag in tags)
        return next((envelope for envelope in found if envelope is not None), None)

    return following
