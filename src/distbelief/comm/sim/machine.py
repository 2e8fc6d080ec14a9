"""What all parts of a simulated cluster share."""

from dataclasses import dataclass, field

from distbelief.comm.sim.events import EventQueue
from distbelief.comm.sim.journal import Journal
from distbelief.comm.sim.links import Links, Noise
from distbelief.comm.sim.process import Process


@dataclass
class Machine:
    """The clockwork of one cluster: one queue, one network, one source of noise."""

    queue: EventQueue
    journal: Journal
    links: Links
    noise: Noise
    flops: float
    """Operations per second of a rank of speed one."""
    memory_bandwidth: float
    """Bytes per second of each rank's memory."""
    check_buffers: bool
    processes: list[Process] = field(default_factory=list)
    """By rank of the whole cluster."""
    running: int = 0
    """How many processes have not ended."""
    groups: int = 0
    """How many groups there have been: the number of the next one."""
