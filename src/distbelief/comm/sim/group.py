"""A group of ranks with messages and collective calls of its own, like an MPI communicator."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distbelief.comm.sim.mailbox import Mailbox
from distbelief.comm.sim.process import Process

if TYPE_CHECKING:
    from distbelief.comm.sim.machine import Machine


class Group:
    """The processes of a group in the order of their ranks in it, and a mailbox for each."""

    def __init__(self, machine: "Machine", processes: Sequence[Process]) -> None:
        self.machine = machine
        self.processes = list(processes)
        self.mailboxes = [Mailbox() for _ in processes]
        self.number = machine.groups
        """0 is the whole cluster, later ones are numbered as they are split off."""
        machine.groups += 1
        self._kind = ""
        self._entered: dict[int, Any] = {}
        self._results: Sequence[Any] = ()

    def collect(self, rank: int, kind: str, value: Any, finish: Callable[[list[Any]], Sequence[Any]]) -> Any:
        """Meet all ranks of the group; returns this rank's entry of `finish(values by rank)`. Collective.

        All leave 2 ceil(log2 size) latencies after the last one has come, as up and down a binary tree. Raises
        AssertionError if the ranks call different things.
        """
        process = self.processes[rank]
        process.check_running()
        assert not self._entered or kind == self._kind, (
            f"rank {rank} calls {kind} while rank {next(iter(self._entered))} is in {self._kind}: not collective"
        )
        self._kind = kind
        self._entered[rank] = value
        self.machine.journal.write(process.rank, kind, group=self.number)
        if len(self._entered) == len(self.processes):
            results = finish([self._entered[member] for member in range(len(self.processes))])
            self._entered = {}
            queue = self.machine.queue
            hops = 2 * math.ceil(math.log2(len(self.processes)))
            queue.at(queue.now + hops * self.machine.links.latency, self._leave, results)
        process.block(f"all {len(self.processes)} ranks of group {self.number} to call {kind}", math.inf)
        return self._results[rank]

    def _leave(self, results: Sequence[Any]) -> None:
        # Nobody can complete another collective before all have left this one, so one list of results is enough.
        self._results = results
        for process in self.processes:
            process.notify()
