"""The endpoint on MPI: messages by Isend and Irecv, windows by Rget, shared within a node. The only importer of mpi4py.

Importing this module initialises MPI. The communicator is duplicated, so our tags meet nobody else's.
"""

import math
import os
import platform
import sys
import time
from collections.abc import Sequence

import mpi4py
import numpy as np

from distbelief.comm.endpoint import ANY, DeadlineExpired, Envelope, Request
from distbelief.kernels import CACHED, copy_past

mpi4py.rc.thread_level = "funneled"
from mpi4py import MPI  # noqa: E402  (the thread level must be set before)

# MPI counts are C ints: longer transfers travel in parts, which both sides cut alike.
PIECE = 1 << 30
LINE = 64  # bytes of a cache line
SHARED = "/dev/shm"  # where MPI libraries keep what the ranks of a node share
# A wait polls this often, then for so many seconds more, giving its core away to whoever wants it in between: long
# enough to catch an answer of a busy peer without a sleep. Partitions of a network wait for each other at every layer.
SPINS, YIELDING = 40, 300e-6
# Then it sleeps, longer and longer: an idle rank costs about 4% of a core and answers within 2 ms (a sleep takes up
# to half a millisecond longer than it was asked to).
SHORTEST_SLEEP, LONGEST_SLEEP = 20e-6, 0.9e-3
# What a launcher gets to end a rank that has aborted.
ABORT_SECONDS = 5.0


class _Backoff:
    """Paces one wait: spins, yields, then sleeps that grow to LONGEST_SLEEP."""

    def __init__(self, timeout: float):
        self.spins = SPINS
        self.sleep = SHORTEST_SLEEP
        now = time.monotonic()
        self.yields_end, self.end = now + min(YIELDING, timeout), now + timeout

    def pause(self) -> bool:
        """Let a little time pass; False once the deadline is over."""
        if self.spins:
            self.spins -= 1
            return True
        now = time.monotonic()
        if now < self.yields_end:
            os.sched_yield()
            return True
        left = self.end - now
        if left <= 0:
            return False
        time.sleep(min(self.sleep, left))
        self.sleep = min(self.sleep * 1.5, LONGEST_SLEEP)
        return True


class MpiRequest:
    """One transfer, in as many parts as its size needs."""

    def __init__(self, parts: list[tuple[MPI.Request, int]], buffer: np.ndarray, receives: bool = False):
        """`parts`: each with its bytes."""
        self._parts = parts
        self._buffer = buffer  # keeps the memory alive until the transfer is over
        self._receives = receives

    def done(self) -> bool:
        """True once every part is complete; ValueError if a received message has another size. Local."""
        while self._parts:
            request, expected = self._parts[-1]
            status = MPI.Status()
            try:
                if not request.Test(status):
                    return False
            except MPI.Exception as error:
                if self._receives and error.Get_error_class() == MPI.ERR_TRUNCATE:
                    raise ValueError(f"received a message of more than the {expected} bytes expected") from error
                raise
            self._parts.pop()
            if self._receives and status.Get_count(MPI.BYTE) != expected:
                source = status.Get_source()
                raise ValueError(f"received {status.Get_count(MPI.BYTE)} bytes from rank {source}, {expected} expected")
        return True


def _parts(buffer: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """What a C-contiguous array travels in: memory, and how many bytes."""
    if not buffer.flags.c_contiguous:
        raise ValueError("buffers must be C-contiguous")
    if buffer.nbytes <= PIECE:
        return [(buffer, buffer.nbytes)]  # as it is: a view takes longer than MPI's own call
    memory = buffer.reshape(-1).view(np.uint8)
    parts = [memory[start : start + PIECE] for start in range(0, memory.size, PIECE)]
    return [(part, part.size) for part in parts]


def _free_to_share() -> float:
    """Bytes that this node has for memory that its ranks share; MPI libraries do not look before they take it."""
    try:
        told = os.statvfs(SHARED)
    except OSError:
        return math.inf
    return told.f_bavail * told.f_frsize


def _sharing(comm: MPI.Comm, nbytes: int) -> tuple[bool, bool]:
    """Whether all ranks share memory; and whether each node has what its ranks ask for, `nbytes` here. Collective."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    asked, first = np.empty(1), np.empty(1, np.int64)
    node.Allreduce(np.array([float(nbytes)]), asked)
    free = _free_to_share()
    # The first rank of those whose node has too little says so.
    comm.Allreduce(np.array([comm.rank if asked > free else comm.size]), first, MPI.MIN)
    if comm.rank == first:
        print(
            f"distbelief: windows of {asked[0] / 2**30:.3g} GiB on {platform.node()}, where {SHARED} has "
            f"{free / 2**30:.3g} GiB free: without shared memory, fetches take longer",
            file=sys.stderr,
            flush=True,
        )
    one = node.size == comm.size
    node.Free()
    return one, bool(first == comm.size)


class MpiWindow:
    """Memory in an MPI window, under one shared lock for its whole life; only Get is ever used on it.

    Where all ranks are of one node, the memory is shared, and each finds that of the others in its address space: so it
    reads it by itself. Where a node has not so much to share, each rank's is private, and MPI moves what is read of it.
    """

    def __init__(self, comm: MPI.Comm, nbytes: int):
        # Whole cache lines, as Open MPI packs the ranks of a node back to back; and at least one, as for 0 bytes some
        # implementations hand out no address to view.
        size = max(-(-nbytes // LINE), 1) * LINE
        one_node, fits = _sharing(comm, size)
        self._shared = one_node and fits
        info = MPI.Info.Create()
        info.Set("mpi_minimum_memory_alignment", str(LINE))
        info.Set("alloc_shared_noncontig", "true")  # each rank's on pages of its own
        if fits:
            allocate = MPI.Win.Allocate_shared if one_node else MPI.Win.Allocate
            self._win = allocate(size, 1, info, comm)
            memory = np.frombuffer(self._win.tomemory(), np.uint8)
        else:
            memory = np.zeros(size + LINE, np.uint8)
            memory = memory[-memory.ctypes.data % LINE :][:size]
            self._win = MPI.Win.Create(memory, 1, info, comm)
        info.Free()
        self._memories: dict[int, np.ndarray] = {}
        self._win.Lock_all(MPI.MODE_NOCHECK)
        self.local = memory[:nbytes]
        self.local[:] = 0
        self._win.Sync()
        comm.Barrier()  # nobody reads before everybody's memory is zero

    def memory(self, source: int) -> np.ndarray | None:
        if not self._shared:
            return None
        if source not in self._memories:
            self._memories[source] = np.frombuffer(self._win.Shared_query(source)[0], np.uint8)
        return self._memories[source]

    def get(self, into: np.ndarray, source: int, offset: int = 0) -> MpiRequest:
        if (memory := self.memory(source)) is not None:
            self._copy(memory[offset : offset + into.nbytes], into)
            return MpiRequest([], into)
        parts = []
        for part, nbytes in _parts(into):
            request = self._win.Rget([part, nbytes, MPI.BYTE], source, (offset, nbytes, MPI.BYTE))
            parts.append((request, nbytes))
            offset += nbytes
        return MpiRequest(parts, into)

    def _copy(self, memory: np.ndarray, into: np.ndarray) -> None:
        """What MPI's Rget does with shared memory, but for what is large: its copies take half as long again."""
        if not into.flags.c_contiguous:
            raise ValueError("buffers must be C-contiguous")
        self.sync()  # after what was read before
        there = into.reshape(-1).view(np.uint8)
        if into.nbytes > CACHED:
            copy_past(memory, there)
        else:
            np.copyto(there, memory)

    def sync(self) -> None:
        self._win.Sync()

    def free(self) -> None:
        self.local = np.empty(0, np.uint8)
        self._memories.clear()
        self._win.Unlock_all()
        self._win.Free()


class MpiEndpoint:
    """The Endpoint protocol over one communicator."""

    def __init__(self, comm: MPI.Comm):
        self._comm = comm
        self.rank = comm.rank
        self.size = comm.size

    def send(self, buffer: np.ndarray, dest: int, tag: int) -> MpiRequest:
        parts = [(self._comm.Isend([part, n, MPI.BYTE], dest, tag), n) for part, n in _parts(buffer)]
        return MpiRequest(parts, buffer)

    def receive(self, buffer: np.ndarray, source: int, tag: int) -> MpiRequest:
        parts = [(self._comm.Irecv([part, n, MPI.BYTE], source, tag), n) for part, n in _parts(buffer)]
        return MpiRequest(parts, buffer, receives=True)

    def probe(self, source: int = ANY, tag: int = ANY) -> Envelope | None:
        status = MPI.Status()
        source = MPI.ANY_SOURCE if source == ANY else source
        tag = MPI.ANY_TAG if tag == ANY else tag
        # Open MPI answers before it looks: what a first probe makes arrive, only a second one tells of.
        if not self._comm.Iprobe(source, tag, status) and not self._comm.Iprobe(source, tag, status):
            return None
        return Envelope(status.Get_source(), status.Get_tag(), status.Get_count(MPI.BYTE))

    def wait_message(self, timeout: float, source: int = ANY, tag: int = ANY) -> Envelope | None:
        envelope = self.probe(source, tag)
        if envelope is not None:
            return envelope
        backoff = _Backoff(timeout)
        while envelope is None and backoff.pause():
            envelope = self.probe(source, tag)
        return envelope

    def wait_any(self, requests: Sequence[Request], timeout: float, what: str) -> int:
        backoff = _Backoff(timeout)
        while True:
            for index, request in enumerate(requests):
                if request.done():
                    return index
            if not backoff.pause():
                raise DeadlineExpired(f"rank {self.rank} waited {timeout:g} s for {what}")

    def wait_all(self, requests: Sequence[Request], timeout: float, what: str) -> None:
        waiting = [request for request in requests if not request.done()]
        if not waiting:
            return  # most are
        backoff = _Backoff(timeout)
        while True:
            waiting = [request for request in waiting if not request.done()]
            if not waiting:
                return
            if not backoff.pause():
                raise DeadlineExpired(f"rank {self.rank} waited {timeout:g} s for {what}")

    def wait_event(
        self, timeout: float, requests: Sequence[Request] = (), patterns: Sequence[tuple[int, int]] = ()
    ) -> bool:
        backoff = _Backoff(timeout)
        while True:
            if any([request.done() for request in requests]) or any(self.probe(*pattern) for pattern in patterns):
                return True
            if not backoff.pause():
                return False

    def window(self, nbytes: int) -> MpiWindow:
        return MpiWindow(self._comm, nbytes)

    def split(self, color: int | None, key: int) -> "MpiEndpoint | None":
        comm = self._comm.Split(MPI.UNDEFINED if color is None else color, key)
        return None if comm == MPI.COMM_NULL else MpiEndpoint(comm)

    def clock(self) -> float:
        return time.monotonic()

    def charge(self, flops: float = 0.0, nbytes: float = 0.0) -> None:
        """Work takes its real time here."""


def world() -> MpiEndpoint:
    """The endpoint over all ranks of the job. Collective over all ranks."""
    return MpiEndpoint(MPI.COMM_WORLD.Dup())


def abort(code: int) -> None:
    """End every rank of the job at once with exit code `code`. Local; does not return."""
    MPI.COMM_WORLD.Abort(code)
    # MPICH's call returns (in 11 of 12 tries) before its launcher ends this rank.
    time.sleep(ABORT_SECONDS)
    os._exit(code)


def library_version() -> str:
    """The first line of what the MPI library says of itself. Local."""
    return MPI.Get_library_version().splitlines()[0].strip().strip("\x00")
