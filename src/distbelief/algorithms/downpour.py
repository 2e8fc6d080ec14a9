"""Downpour SGD (Dean et al. 2012, section 4.1): what every rank of a job does, by its roles.

coordinator (coordinator.py)    starts, evaluates, stops
shard       (server.service)    applies the gradients that arrive
replica     (replica.py)        the paper's client loop, on one rank or on several together (unison.py)
"""

import math

from distbelief.algorithms.beginning import begin
from distbelief.algorithms.coordination import READY, Orders, report
from distbelief.algorithms.coordinator import Coordinator
from distbelief.algorithms.keeper import InMemory, Keeper
from distbelief.algorithms.loop import Part, serve
from distbelief.algorithms.model import Cut, Problem, for_partition
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.replica import Replica
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.serving import Serving
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.algorithms.warmstart import clocks
from distbelief.comm.endpoint import Endpoint
from distbelief.optim import Rule
from distbelief.partition import Peers
from distbelief.server import Bounded, Client, Interval, Placement, Server, Service, Shard
from distbelief.server.shard import NEVER


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
    keeper: Keeper | None = None,
) -> Outcome:
    """Play this rank's roles until the job is done. Collective over the endpoint.

    `timeout`: seconds that any one wait may take, before DeadlineExpired says who waited for whom. `keeper`: takes the
    parameters if replicas are cut (`roles.cut`); None: the outcome of the coordinator's rank has them, as it does else.
    """
    server = server or Server()
    rank = endpoint.rank
    place = roles.place(rank)
    alone = place is not None and roles.cut is None  # a replica of one rank
    whole = problem.replica_model() if alone and hasattr(problem, "replica_model") else problem.model()
    placement = Placement(whole.layout.size, len(roles.shards))
    cut = None if roles.cut is None else problem.cut(roles.partitions)
    number = roles.shards.index(rank) if rank in roles.shards else None
    clients = len(roles.replicas) * roles.partitions
    exposed = 0
    if number is not None:
        exposed = Shard.window_bytes(placement.intervals[number], whole.dtype, server, clients)
    intervals, room = None, 0
    if place is not None:
        tensors = [Interval(tensor.start, tensor.stop) for tensor in whole.layout.tensors]
        intervals = tensors if cut is None else cut.intervals[place.partition]
        room = Client.room_bytes(placement, server, intervals)
    window = endpoint.window(exposed + room)

    parts: list[Part] = []
    if number is not None:
        interval = placement.intervals[number]
        first = _first_clocks(downpour, roles, placement, cut, number)
        shard = Shard(interval, whole.dtype, rule, window, server, first, roles.partitions)
        shard.begin(lambda parameters: begin(whole, problem.seed, parameters, interval.start))
        parts.append(Service(endpoint, shard, timeout, server))
    coordinator = None
    if rank == roles.coordinator:
        reader = Client(endpoint, window, placement, roles.shards, whole.dtype, timeout, server, clients=clients)
        if cut is not None and keeper is None:
            keeper = InMemory(whole.layout, whole.dtype)
        coordinator = Coordinator(
            endpoint,
            roles,
            reader,
            problem,
            downpour,
            stop,
            evaluate,
            timeout,
            listener,
            None if cut is None else keeper,
        )
        parts.append(coordinator)
    elif number is not None:
        report(endpoint, roles.coordinator, timeout, READY)

    here = Serving(endpoint, parts) if parts and place is not None else endpoint
    orders = Orders(here, roles.coordinator, timeout)
    if place is not None:
        model = whole
        if cut is not None:
            model = cut.model(Peers(here, roles.ranks[place.replica], timeout))
            problem = for_partition(problem, cut, place.partition)
        client = Client(
            here,
            window,
            placement,
            roles.shards,
            whole.dtype,
            timeout,
            server,
            place.replica * roles.partitions + place.partition,
            clients,
            intervals,
            exposed,
        )
        masters = None
        if cut is not None and place.replica == 0:  # whose evaluations try the parameters themselves, whatever the wire
            reading = (here, window, placement, roles.shards, whole.dtype, timeout, server)
            masters = Client(*reading, clients=clients, intervals=intervals)
        Replica(
            here,
            client,
            orders,
            roles,
            problem,
            model,
            downpour,
            stop,
            rule.rate if downpour.local_rate is None else downpour.local_rate,
            (evaluate.every_examples or math.inf) / (4 * len(roles.replicas)),
            timeout,
            server.staleness.steps if isinstance(server.staleness, Bounded) else None,
            masters,
        ).run()
    else:
        serve(endpoint, parts if coordinator is not None else [*parts, orders])
    window.free()
    return Outcome(orders.failed) if coordinator is None else coordinator.outcome


def _first_clocks(downpour: Downpour, roles: Roles, placement: Placement, cut: Cut | None, shard: int) -> list[int]:
    """Of each client, before its first push; NEVER of a partition that has nothing of the shard."""
    first = clocks(downpour, len(roles.replicas))
    if cut is None:
        return first
    touched = [shard in {s for s, _ in placement.intersect(intervals)} for intervals in cut.intervals]
    return [clock if here else NEVER for clock in first for here in touched]
