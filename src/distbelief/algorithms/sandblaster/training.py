"""Sandblaster (Dean et al. 2012, section 4.2): what every rank of a job does, by its roles.

coordinator (coordinator.py, conduct.py)    runs the batch method by commands to the shards, deals out portions
shard       (server.vectors)                holds its interval of every vector, carries out commands, adds up sums
replica     (replica.py)                    gradients over portions
"""

import numpy as np

from distbelief.algorithms.coordination import Orders
from distbelief.algorithms.loop import Part, serve
from distbelief.algorithms.model import Problem
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.sandblaster.alone import Alone
from distbelief.algorithms.sandblaster.batches import Batches
from distbelief.algorithms.sandblaster.conduct import GOOD, Conductor
from distbelief.algorithms.sandblaster.coordinator import Coordinator
from distbelief.algorithms.sandblaster.portions import Portions, cut
from distbelief.algorithms.sandblaster.replica import Replica
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.settings import Evaluate
from distbelief.comm.endpoint import Endpoint
from distbelief.nn.arena import Arena
from distbelief.server import Placement
from distbelief.server.vectors import VectorService, read_parameters


def train(
    endpoint: Endpoint,
    roles: Roles,
    problem: Problem,
    sandblaster: Sandblaster,
    evaluate: Evaluate,
    listener: Listener,
    timeout: float = 300.0,
) -> Outcome:
    """Play this rank's roles until the job is done. Collective over the endpoint.

    `timeout`: seconds that any one wait may take, before DeadlineExpired says who waited for whom.
    """
    rank = endpoint.rank
    model = problem.model()
    training, held_out = problem.examples(), problem.held_out_examples()
    portions = cut(len(training), sandblaster.portion, sandblaster.batch is not None, problem.seed)
    held_out_portions = Portions(len(held_out), sandblaster.portion)
    placement = Placement(model.layout.size, len(roles.shards))
    names = (*sandblaster.method.vectors, GOOD)

    shard = roles.shards.index(rank) if rank in roles.shards else None
    exposed = 0 if shard is None else placement.intervals[shard].size * np.dtype(model.dtype).itemsize
    window = endpoint.window(exposed)
    orders = Orders(endpoint, roles.coordinator, timeout)
    parts: list[Part] = []
    if shard is not None:
        interval = placement.intervals[shard]
        beginning = Arena(model.layout, model.dtype)
        model.initialise(beginning, problem.seed)
        values = beginning.flat[interval.start : interval.stop]
        parts.append(VectorService(endpoint, window, interval, values, names, roles.coordinator, timeout))
    if rank in roles.replicas:
        parts.append(
            Replica(
                endpoint,
                window,
                placement,
                roles.shards,
                roles.coordinator,
                roles.replicas.index(rank),
                model,
                (training, portions),
                (held_out, held_out_portions),
                timeout,
            )
        )
    if rank != roles.coordinator:
        serve(endpoint, [*parts, orders])
        if not orders.rank_is_missing:
            window.free()
        return Outcome(orders.failed, rank_missing=orders.rank_is_missing)

    coordinator = Coordinator(endpoint, roles, names, sandblaster, portions, held_out_portions, timeout, parts)
    size = model.layout.size * np.dtype(model.dtype).itemsize
    batches = Batches(len(portions), sandblaster.batch)
    conductor = Conductor(
        coordinator, sandblaster.method, batches, sandblaster.stop, evaluate, listener, endpoint.clock, size
    )
    conductor.run()
    # The work is done; only now this rank sees the result, to keep it.
    result = Arena(model.layout, model.dtype)
    read_parameters(endpoint, window, placement, roles.shards, result.flat, timeout)
    complete = coordinator.dismiss(failed=conductor.fault is not None)
    if complete:
        window.free()
    fault = conductor.fault
    return Outcome(fault is not None, result, conductor.latest, fault, conductor.reason, not complete)


def train_alone(
    problem: Problem, sandblaster: Sandblaster, evaluate: Evaluate, listener: Listener, clock=None
) -> Outcome:
    """The same method on one rank, which is everything. Local."""
    examples = problem.examples()
    portions = cut(len(examples), sandblaster.portion, sandblaster.batch is not None, problem.seed)
    arguments = () if clock is None else (clock,)
    alone = Alone(problem, portions, (*sandblaster.method.vectors, GOOD), *arguments)
    batches = Batches(len(portions), sandblaster.batch)
    size = alone.parameters.flat.nbytes
    conductor = Conductor(alone, sandblaster.method, batches, sandblaster.stop, evaluate, listener, alone.clock, size)
    conductor.run()
    return Outcome(conductor.fault is not None, alone.parameters, conductor.latest, conductor.fault, conductor.reason)
