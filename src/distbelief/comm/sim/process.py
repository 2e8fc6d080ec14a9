"""One rank of the simulated cluster: a greenlet that runs its program and sleeps in virtual time."""

import contextvars
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import greenlet

if TYPE_CHECKING:
    from distbelief.comm.sim.machine import Machine

LOOK = 100e-9
"""Seconds that one look at the state of things costs (probe, done, the start of each wait).

Without it a loop that polls would never let virtual time pass, and never end.
"""


class Process:
    """A rank's thread of control.

    The program runs in a greenlet of its own. It gives control back to the event loop by `sleep` and `block`,
    and gets it again from an event; between the two nothing else happens in the cluster.
    """

    def __init__(self, machine: "Machine", rank: int, speed: float) -> None:
        self.machine = machine
        self.rank = rank
        self.speed = speed
        self.ended = False
        self.died_at: float | None = None
        self.result: Any = None
        self.waiting_for: str | None = None
        """What the rank is blocked on, for the report of a deadlock."""
        self.blocked_since = 0.0
        self._needed = 0
        self._expired = False
        self._timer: list[Any] | None = None
        self._queue = machine.queue
        self._greenlet: greenlet.greenlet | None = None
        # To the program, and back to the event loop. An ended program returns at once.
        self._resume: Callable[..., Any] = _not_started
        self._give_way: Callable[[], Any] = _not_started

    def start(self, program: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Begin the program at this moment of virtual time, as a child of the calling greenlet."""
        self._greenlet = greenlet.greenlet(self._run)
        # A greenlet begins with an empty context; the caller's settings (np.errstate is one) should hold inside.
        self._greenlet.gr_context = contextvars.copy_context()
        self._resume, self._give_way = self._greenlet.switch, self._greenlet.parent.switch
        self.machine.queue.at(self.machine.queue.now, self._resume, program, arguments)

    def _run(self, program: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self.result = program(*arguments)
        except BaseException as error:
            if self.ended:
                return  # on its way out; also what a `finally` of the program raised meanwhile
            self._count_out()
            error.add_note(f"raised by rank {self.rank} of the simulated cluster at {self.machine.queue.now:.9f} s")
            raise
        if not self.ended:
            self._count_out()
            self.machine.journal.write(self.rank, "end")

    def end(self) -> None:
        """Stop the program where it stands, silently: its `finally` clauses run, but can no longer communicate."""
        if self.ended:
            return
        self._count_out()
        self.waiting_for = None
        self._stop_timer()
        if self._greenlet is not None:
            self._greenlet.throw(greenlet.GreenletExit)

    def kill(self) -> None:
        """Die at this moment. A rank that has already ended stays as it is."""
        if not self.ended:
            self.died_at = self.machine.queue.now
            self.machine.journal.write(self.rank, "kill")
            self.end()

    def was_alive(self, time: float) -> bool:
        """Whether the rank had not been killed by `time`: what left its link by then still arrives."""
        return self.died_at is None or self.died_at >= time

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass; nothing can wake the rank early."""
        if self.ended:  # check_running, without the call: nothing in a cluster happens more often than this
            raise greenlet.GreenletExit
        queue = self._queue
        time = queue.now + seconds
        if not queue.skip_to(time):
            queue.at(time, self._resume)
            self._give_way()

    def block(self, what: str, deadline: float, needed: int = 1) -> bool:
        """Sleep until `notify` was called `needed` times (True) or `deadline` passes (False)."""
        self.check_running()
        queue = self.machine.queue
        self.waiting_for, self.blocked_since, self._needed = what, queue.now, needed
        self._expired = False
        if deadline != math.inf:
            self._timer = queue.at(max(deadline, queue.now), self._expire)
        self._give_way()
        self.waiting_for = None
        return not self._expired

    def notify(self, enough: bool = False) -> None:
        """One of the things that the rank is blocked on has happened; `enough` wakes it whatever is missing."""
        before = self._needed
        self._needed = 0 if enough else before - 1
        if before > 0 and self._needed <= 0:
            self._stop_timer()
            self.machine.queue.at(self.machine.queue.now, self._resume)

    def _count_out(self) -> None:
        self.ended = True
        self.machine.running -= 1
        if self.machine.running == 0:
            self._queue.stop()

    def _expire(self) -> None:
        self._timer = None
        self._needed = 0
        self._expired = True
        self.machine.journal.write(self.rank, "timeout")
        self._resume()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self.machine.queue.cancel(self._timer)
            self._timer = None

    def check_running(self) -> None:
        """Raises GreenletExit in a program that goes on although its rank has been ended."""
        if self.ended:
            raise greenlet.GreenletExit


def _not_started(*arguments: Any) -> None:
    raise AssertionError("this rank has not been started")
