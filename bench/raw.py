"""MPI's own calls between a client and its shards: what fetches and pushes are made of, without anything of ours."""

from collections.abc import Sequence

import numpy as np

DATA, TAKEN = 1, 2  # tags, on a communicator of our own


class Raw:
    """As many bytes as travel in a fetch or a push, to and from ranks 1, 2, ...; rank 0 is the client."""

    def __init__(self, sizes: Sequence[int]):
        """`sizes`: the bytes of each shard. Collective over all ranks of the job, as `free` is."""
        from mpi4py import MPI

        self._comm = MPI.COMM_WORLD.Dup()
        self._byte = MPI.BYTE
        self._sizes = sizes
        here = self._comm.rank
        exposed = sizes[here - 1] if here else 0
        self._memory = np.ones(exposed if here else sum(sizes), np.uint8)
        self._window = MPI.Win.Allocate(max(exposed, 1), 1, MPI.INFO_NULL, self._comm)
        self._window.Lock_all(MPI.MODE_NOCHECK)
        np.frombuffer(self._window.tomemory(), np.uint8)[:] = 1
        self._window.Sync()
        self._comm.Barrier()
        ends = np.cumsum(sizes).tolist()
        self._parts = (
            [self._memory[end - size : end] for size, end in zip(sizes, ends, strict=True)] if not here else []
        )

    def get(self) -> None:
        """The client: read everything by Rget."""
        requests = [
            self._window.Rget([part, part.size, self._byte], rank, (0, part.size, self._byte))
            for rank, part in enumerate(self._parts, 1)
        ]
        for request in requests:
            request.Wait()

    def send(self) -> None:
        """The client: send everything by Isend, until 8 bytes of each shard say that it is there; it is in `take`."""
        taken = np.empty((len(self._parts), 8), np.uint8)
        requests = [self._comm.Isend([part, self._byte], rank, DATA) for rank, part in enumerate(self._parts, 1)]
        requests += [self._comm.Irecv([said, self._byte], rank, TAKEN) for rank, said in enumerate(taken, 1)]
        for request in requests:
            request.Wait()

    def take(self) -> None:
        """A shard: its part in one `send`."""
        self._comm.Irecv([self._memory, self._byte], 0, DATA).Wait()
        self._comm.Isend([np.zeros(8, np.uint8), self._byte], 0, TAKEN).Wait()

    def free(self) -> None:
        self._window.Unlock_all()
        self._window.Free()
        self._comm.Free()
