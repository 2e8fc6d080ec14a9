"""A whole cluster in one process: builds it, runs a program on every rank, reports what went wrong."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np

from distbelief.comm.sim.endpoint import SimEndpoint
from distbelief.comm.sim.events import EventQueue
from distbelief.comm.sim.group import Group
from distbelief.comm.sim.journal import Journal
from distbelief.comm.sim.links import Links, Noise
from distbelief.comm.sim.machine import Machine
from distbelief.comm.sim.process import Process


class Deadlock(RuntimeError):
    """Nothing can happen any more, yet ranks are blocked. The text lists them and what each waits for."""


class Cluster:
    """`size` ranks with links and speeds, in virtual time. Runs one program, once.

    Args:
        size: number of ranks.
        latency: seconds from one rank to another.
        bandwidth: bytes per second of each rank's outgoing and of its incoming link.
        flops: operations per second of each rank.
        memory_bandwidth: bytes per second of each rank's memory.
        jitter: relative spread of the lognormal noise (of mean one) on each charge and each latency.
        speeds: factors on `flops` of single ranks: {3: 0.1} makes rank 3 a straggler.
        seed: of all noise. The same seed and the same program give the same log, byte for byte.
        log: where to write one line per event; see `Journal` for the columns.
        check_buffers: catch senders that change a buffer under way. Costs a copy and a comparison per message.
        time_limit: virtual seconds after which the run is given up (TimeLimit).
    """

    def __init__(
        self,
        size: int,
        *,
        latency: float = 1e-6,
        bandwidth: float = 10e9,
        flops: float = 50e9,
        memory_bandwidth: float = 10e9,
        jitter: float = 0.0,
        speeds: Mapping[int, float] | None = None,
        seed: int = 0,
        log: TextIO | None = None,
        check_buffers: bool = True,
        time_limit: float = math.inf,
    ) -> None:
        if size < 1:
            raise ValueError(f"a cluster of {size} ranks, expected at least 1")
        speeds = dict(speeds or {})
        for rank, speed in speeds.items():
            if not 0 <= rank < size or speed <= 0:
                raise ValueError(f"speed {speed} for rank {rank}: expected a rank below {size}, a positive factor")
        queue = EventQueue(time_limit)
        noise = Noise(jitter, np.random.default_rng(seed))
        self._machine = Machine(
            queue=queue,
            journal=Journal(log, queue),
            links=Links(size, latency, bandwidth, memory_bandwidth, noise),
            noise=noise,
            flops=flops,
            memory_bandwidth=memory_bandwidth,
            check_buffers=check_buffers,
        )
        processes = [Process(self._machine, rank, speeds.get(rank, 1.0)) for rank in range(size)]
        self._machine.processes.extend(processes)
        self._world = Group(self._machine, processes)
        self._used = False

    @property
    def now(self) -> float:
        """Virtual time in seconds."""
        return self._machine.queue.now

    @property
    def events(self) -> int:
        """How many events have happened so far."""
        return self._machine.queue.count

    def kill(self, rank: int, at: float) -> None:
        """Have `rank` die at virtual time `at` (seconds), or now if that is past. Before or during `run`.

        Its program ends silently (its result is None), messages to it vanish, reads of its window never finish.
        What had left it by then still arrives. Raises ValueError for a rank that does not exist.
        """
        if not 0 <= rank < len(self._machine.processes):
            raise ValueError(f"no rank {rank} to kill in a cluster of {len(self._machine.processes)}")
        self._machine.queue.at(max(at, self.now), self._machine.processes[rank].kill)

    def run(self, program: Callable[..., Any], *args: Any) -> list[Any]:
        """Call `program(endpoint, *args)` on every rank; returns what each returned, by rank.

        The first error of any rank comes out of here, with a note naming the rank and the virtual time, after
        all other ranks have been ended. Raises Deadlock if all are blocked for ever.
        """
        if self._used:
            raise RuntimeError("a cluster runs one program, once")
        self._used = True
        machine = self._machine
        machine.running = len(machine.processes)
        try:
            for process in machine.processes:
                process.start(program, (SimEndpoint(self._world, process.rank), *args))
            if not machine.queue.run():
                raise Deadlock(self._deadlock_report())
        finally:
            for process in machine.processes:
                process.end()
        return [process.result for process in machine.processes]

    def _deadlock_report(self) -> str:
        lines = [f"deadlock at virtual time {self.now:.9f} s:"]
        for process in self._machine.processes:
            if process.waiting_for is not None:
                lines.append(
                    f"  rank {process.rank} has waited since {process.blocked_since:.9f} s for {process.waiting_for}"
                )
            elif process.died_at is not None:
                lines.append(f"  rank {process.rank} was killed at {process.died_at:.9f} s")
        return "\n".join(lines)
