"""Downpour SGD (Dean et al. 2012, section 4.1): what every rank of a job does, by its roles.

coordinator (coordinator.py)    starts, evaluates, stops
shard       (server.service)    applies the gradients that arrive
replica     (replica.py)        the paper's client loop
"""

import math

import numpy as np

from distbelief.algorithms.coordination import END, GIVE_UP, READY, Orders, report
from distbelief.algorithms.coordinator import Coordinator
from distbelief.algorithms.loop import Part, serve
from distbelief.algorithms.model import Model, Problem
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.replica import Replica
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.serving import Serving
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.algorithms.warmstart import clocks
from distbelief.comm.endpoint import Endpoint
from distbelief.nn.arena import Arena
from distbelief.optim import Rule
from distbelief.server import Bounded, Client, Interval, Placement, Server, Service, Shard


def train(
    endpoint: Endpoint,
    roles: Roles,
    problem: Problem,
    rule: Rule,
    downpour: Downpour,
    stop: Stop,
    evaluate: Evaluate,
    listener: Listener,
    timeout: float = 300.0,
    server: Server | None = None,
) -> Outcome:
    """Play this rank's roles until the job is done. Collective over the endpoint.

    `timeout`: seconds that any one wait may take, before DeadlineExpired says who waited for whom.
    """
    server = server or Server()
    rank = endpoint.rank
    model = problem.model()
    placement = Placement(model.layout.size, len(roles.shards))
    number = roles.shards.index(rank) if rank in roles.shards else None
    replicas = len(roles.replicas)
    exposed = 0
    if number is not None:
        exposed = Shard.window_bytes(placement.intervals[number], model.dtype, server, replicas)
    window = endpoint.window(exposed)
    replica = roles.replicas.index(rank) if rank in roles.replicas else None

    parts: list[Part] = []
    if number is not None:
        interval = placement.intervals[number]
        values = _beginning(problem, model)[interval.start : interval.stop]
        shard = Shard(interval, values, rule, window, server, clocks(downpour, replicas))
        parts.append(Service(endpoint, shard, timeout, server))
    coordinator = None
    if rank == roles.coordinator:
        reader = Client(endpoint, window, placement, roles.shards, model.dtype, timeout, server, clients=replicas)
        coordinator = Coordinator(endpoint, roles, reader, problem, downpour, stop, evaluate, timeout, listener)
        parts.append(coordinator)
    elif number is not None:
        report(endpoint, roles.coordinator, timeout, READY)

    here = Serving(endpoint, parts) if parts and replica is not None else endpoint
    orders = Orders(here, roles.coordinator, timeout)
    if replica is not None:
        tensors = [Interval(tensor.start, tensor.stop) for tensor in model.layout.tensors]
        client = Client(here, window, placement, roles.shards, model.dtype, timeout, server, replica, replicas, tensors)
        Replica(
            here,
            client,
            orders,
            roles.coordinator,
            replica,
            replicas,
            problem,
            downpour,
            stop,
            rule.rate if downpour.local_rate is None else downpour.local_rate,
            (evaluate.every_examples or math.inf) / (4 * replicas),
            timeout,
            server.staleness.steps if isinstance(server.staleness, Bounded) else None,
        ).run()
        if coordinator is None:
            orders.wait(END, GIVE_UP)
        else:
            here.serve()
    else:
        serve(endpoint, parts if coordinator is not None else [*parts, orders])
    window.free()
    return Outcome(orders.failed) if coordinator is None else coordinator.outcome


def _beginning(problem: Problem, model: Model) -> np.ndarray:
    """The parameters that training begins with, shape (size,)."""
    beginning = Arena(model.layout, model.dtype)
    model.initialise(beginning, problem.seed)
    return beginning.flat
