"""Windows: memory that the other ranks of a group read, one-sided."""

from collections.abc import Sequence

import numpy as np

from distbelief.comm.sim.group import Group
from distbelief.comm.sim.request import SimRequest, flat_writable

ALIGNMENT = 64


class SimWindow:
    """One rank's side of a window.

    A get is a request that travels one latency, a read of the owner's memory at one moment, and a transfer back
    over the owner's outgoing link. One rank's gets read another's memory in the order asked for. They cost the
    owner's program nothing, and go on when that has returned.
    """

    def __init__(self, group: Group, rank: int, memories: Sequence[np.ndarray]) -> None:
        self.local = memories[rank]
        self._group = group
        self._rank = rank
        self._process = group.processes[rank]
        self._memories = memories
        self._freed = False
        self._under_way = 0

    def get(self, into: np.ndarray, source: int, offset: int = 0) -> SimRequest:
        """Start reading `into.nbytes` bytes at byte `offset` of rank `source`'s memory. Local.

        Raises ValueError for bytes that are not there, and after `free`.
        """
        self._process.check_running()
        flat = flat_writable(into)
        if self._freed:
            raise ValueError(f"rank {self._rank} reads a window that has been freed")
        if not 0 <= source < len(self._memories):
            raise ValueError(f"rank {self._rank} reads from rank {source} of {len(self._memories)}")
        if not 0 <= offset <= offset + flat.size <= self._memories[source].size:
            raise ValueError(
                f"rank {self._rank} reads bytes {offset} to {offset + flat.size} of rank {source}'s window of "
                f"{self._memories[source].size} bytes"
            )
        request = SimRequest(self._process)
        machine = self._group.machine
        self._under_way += 1
        self._write("get", source, flat.size)
        reader, owner = self._process.rank, self._group.processes[source].rank
        time = machine.links.read_in_order(reader, owner, machine.queue.now + machine.links.delay(reader, owner))
        machine.queue.at(time, self._read, flat, source, offset, request)
        return request

    def memory(self, source: int) -> None:
        """Each rank is a machine of its own: memory is reached by `get`."""

    def sync(self) -> None:
        """Stores are visible at once here. Local."""
        self._process.check_running()

    def free(self) -> None:
        """Release the memory. Collective over the endpoint.

        Raises AssertionError while a read of this rank is under way: MPI would leave its buffer undefined.
        """
        self._process.check_running()
        assert not self._freed, f"rank {self._rank} frees a window twice"
        assert not self._under_way, f"rank {self._rank} frees a window while {self._under_way} gets are under way"
        self._freed = True
        self._group.collect(self._rank, "free", None, lambda values: values)
        self.local = np.empty(0, np.uint8)

    def _read(self, into: np.ndarray, source: int, offset: int, request: SimRequest) -> None:
        machine = self._group.machine
        owner = self._group.processes[source]
        if owner.died_at is not None or self._process.died_at is not None:
            self._write("lost", source, into.size)
            return
        data = self._memories[source][offset : offset + into.size].copy()
        transfer = machine.links.transfer(owner.rank, self._process.rank, into.size, machine.queue.now)
        machine.queue.at(transfer.arrival, self._got, into, data, source, transfer.left, request)

    def _got(self, into: np.ndarray, data: np.ndarray, source: int, left: float, request: SimRequest) -> None:
        if self._process.died_at is not None or not self._group.processes[source].was_alive(left):
            self._write("lost", source, into.size)
            return
        self._under_way -= 1
        into[:] = data
        self._write("got", source, into.size)
        request.finish()

    def _write(self, kind: str, source: int, nbytes: int) -> None:
        journal = self._group.machine.journal
        if not journal.silent:
            peer = self._group.processes[source].rank
            journal.write(self._process.rank, kind, peer, nbytes=nbytes, group=self._group.number)


def make_windows(group: Group, sizes: Sequence[int]) -> list[SimWindow]:
    """The windows of all ranks of a group, by rank, each with `sizes[rank]` bytes of zeros."""
    memories = [_aligned_zeros(nbytes) for nbytes in sizes]
    return [SimWindow(group, rank, memories) for rank in range(len(sizes))]


def _aligned_zeros(nbytes: int) -> np.ndarray:
    memory = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]
