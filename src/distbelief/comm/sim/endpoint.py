"""The endpoint protocol in virtual time."""

from collections.abc import Sequence

import numpy as np

from distbelief.comm.endpoint import ANY, DeadlineExpired, Envelope
from distbelief.comm.sim.group import Group
from distbelief.comm.sim.mailbox import Receive
from distbelief.comm.sim.message import Message
from distbelief.comm.sim.process import LOOK
from distbelief.comm.sim.request import SimRequest, flat_bytes, flat_writable, wait, wait_watching
from distbelief.comm.sim.window import SimWindow, make_windows


class SimEndpoint:
    """One rank's view of a group of simulated ranks; see `comm.endpoint.Endpoint` for the contract.

    Starting a transfer takes no virtual time. Each probe, `done` and wait takes one LOOK.
    """

    def __init__(self, group: Group, rank: int) -> None:
        self.rank = rank
        self.size = len(group.processes)
        self._group = group
        self._machine = group.machine
        self._process = group.processes[rank]
        self._mailbox = group.mailboxes[rank]

    def send(self, buffer: np.ndarray, dest: int, tag: int) -> SimRequest:
        """Start sending `buffer`; do not change it until the request is done. Local.

        Raises ValueError for a wrong rank, tag or layout. A change of the buffer ends the run (AssertionError).
        """
        self._process.check_running()
        self._check("sends to", dest, tag)
        message = Message(self._group, self.rank, dest, tag, flat_bytes(buffer))
        message.start()
        return message.request

    def receive(self, buffer: np.ndarray, source: int, tag: int) -> SimRequest:
        """Start receiving into `buffer` from exactly `source` and `tag`. Local.

        Raises ValueError for a wrong rank, tag or layout here; for a message of another size where the request
        is waited for.
        """
        self._process.check_running()
        self._check("receives from", source, tag)
        receive = Receive(flat_writable(buffer), SimRequest(self._process))
        message = self._mailbox.post(source, tag, receive)
        if message is not None:
            message.match(receive)
        return receive.request

    def probe(self, source: int = ANY, tag: int = ANY) -> Envelope | None:
        """The envelope of the first message that has arrived and fits, or None. Local."""
        self._process.sleep(LOOK)
        message = self._mailbox.first(source, tag)
        return None if message is None else message.envelope()

    def wait_message(self, timeout: float, source: int = ANY, tag: int = ANY) -> Envelope | None:
        """Like probe, but wait up to `timeout` seconds for a message; None if none came. Local."""
        deadline = self.clock() + timeout
        envelope = self.probe(source, tag)
        if envelope is not None:
            return envelope
        self._mailbox.wanted = frozenset([(source, tag)])
        who, which = ("any rank" if source == ANY else f"rank {source}"), ("any" if tag == ANY else tag)
        came = self._process.block(f"a message from {who} with tag {which}", deadline)
        self._mailbox.wanted = frozenset()
        if not came:
            return None
        message = self._mailbox.first(source, tag)
        assert message is not None, "woken for a message that is not there"
        return message.envelope()

    def wait_any(self, requests: Sequence[SimRequest], timeout: float, what: str) -> int:
        """Wait until one of `requests` is done and return its index, the lowest if several are. Local.

        Raises DeadlineExpired after `timeout` seconds, ValueError if there is nothing to wait for.
        """
        if not requests:
            raise ValueError(f"rank {self.rank} waits for {what}, but for no request")
        if not wait(self._process, requests, timeout, what, everything=False):
            raise self._expired(timeout, what)
        return next(index for index, request in enumerate(requests) if request.complete)

    def wait_all(self, requests: Sequence[SimRequest], timeout: float, what: str) -> None:
        """Wait until all of `requests` are done; DeadlineExpired after `timeout` seconds. Local."""
        if not wait(self._process, requests, timeout, what, everything=True):
            raise self._expired(timeout, what)

    def wait_event(
        self, timeout: float, requests: Sequence[SimRequest] = (), patterns: Sequence[tuple[int, int]] = ()
    ) -> bool:
        """Wait until one of `requests` is done, or a message like one of `patterns` (source, tag) has arrived. Local.

        False if neither came in `timeout` seconds.
        """
        deadline = self.clock() + timeout
        self._process.sleep(LOOK)
        if any([request.checked() for request in requests]) or any(self._mailbox.first(*p) for p in patterns):
            return True
        self._mailbox.wanted = frozenset(patterns)
        came = wait_watching(self._process, requests, deadline, f"a request or a message like {list(patterns)}")
        self._mailbox.wanted = frozenset()
        return came

    def window(self, nbytes: int) -> SimWindow:
        """Expose `nbytes` (0 is allowed) of new memory to the other ranks. Collective over the endpoint."""
        return self._group.collect(self.rank, "window", nbytes, lambda sizes: make_windows(self._group, sizes))

    def split(self, color: int | None, key: int) -> "SimEndpoint | None":
        """A new endpoint over the ranks of the same `color`, by `key`, then rank. Collective over the endpoint."""
        return self._group.collect(self.rank, "split", (color, key), self._split)

    def clock(self) -> float:
        """Virtual time in seconds. Local."""
        return self._machine.queue.now

    def charge(self, flops: float = 0.0, nbytes: float = 0.0) -> None:
        """Let the time pass that `flops` operations and `nbytes` of memory traffic take. Local."""
        machine, process = self._machine, self._process
        process.check_running()
        machine.journal.write(process.rank, "charge", nbytes=int(nbytes), group=self._group.number)
        seconds = flops / (machine.flops * process.speed) + nbytes / machine.memory_bandwidth
        process.sleep(seconds * machine.noise.factor())

    def _split(self, wishes: Sequence[tuple[int | None, int]]) -> "list[SimEndpoint | None]":
        members: dict[int, list[int]] = {}
        for rank in sorted(range(self.size), key=lambda rank: (wishes[rank][1], rank)):
            if wishes[rank][0] is not None:
                members.setdefault(wishes[rank][0], []).append(rank)
        endpoints: list[SimEndpoint | None] = [None] * self.size
        for color in sorted(members):
            group = Group(self._machine, [self._group.processes[rank] for rank in members[color]])
            for new_rank, rank in enumerate(members[color]):
                endpoints[rank] = SimEndpoint(group, new_rank)
        return endpoints

    def _check(self, verb: str, peer: int, tag: int) -> None:
        if not 0 <= peer < self.size:
            raise ValueError(f"rank {self.rank} {verb} rank {peer}, expected 0 to {self.size - 1}")
        if tag < 0:
            raise ValueError(f"rank {self.rank} {verb} rank {peer} with tag {tag}, expected 0 or more")

    def _expired(self, timeout: float, what: str) -> DeadlineExpired:
        return DeadlineExpired(f"rank {self.rank} waited {timeout:g} s for {what}")
