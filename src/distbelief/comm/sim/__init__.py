"""A cluster in virtual time, in one process: the same roles as on MPI, one event queue, one seed.

    cluster = Cluster(size=20, latency=2e-6, jitter=0.1, speeds={3: 0.2}, seed=7)
    cluster.kill(5, at=0.25)
    results = cluster.run(program)          # program(endpoint) on every rank

The layers, from below: `events` (the queue), `links` (when bytes arrive), `process` (a rank's greenlet), `request`,
`mailbox`, `group`, `message` and `window` (what an endpoint is made of), `endpoint`, `cluster`.
"""

from distbelief.comm.sim.cluster import Cluster, Deadlock
from distbelief.comm.sim.endpoint import SimEndpoint
from distbelief.comm.sim.events import TimeLimit
from distbelief.comm.sim.links import EAGER_LIMIT
from distbelief.comm.sim.process import LOOK

__all__ = ["EAGER_LIMIT", "LOOK", "Cluster", "Deadlock", "SimEndpoint", "TimeLimit"]
