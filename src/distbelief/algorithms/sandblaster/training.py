"""Sandblaster (Dean et al. 2012, section 4.2): what every rank of a job does, by its roles.

coordinator (coordinator.py, conduct.py)    runs the batch method by commands to the shards, deals out portions
shard       (server.vectors)                holds its interval of every vector, carries out commands, adds up sums
replica     (replica.py, worker.py)         gradients over portions, on one rank or on several (follower.py)
"""

from collections.abc import Sequence

import numpy as np

from distbelief.algorithms.beginning import begin
from distbelief.algorithms.coordination import Orders
from distbelief.algorithms.keeper import Keeper
from distbelief.algorithms.loop import Part, serve
from distbelief.algorithms.model import Examples, Model, Problem, for_partition
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.sandblaster.alone import Alone
from distbelief.algorithms.sandblaster.batches import Batches
from distbelief.algorithms.sandblaster.conduct import GOOD, Conductor
from distbelief.algorithms.sandblaster.coordinator import Coordinator
from distbelief.algorithms.sandblaster.follower import Follower
from distbelief.algorithms.sandblaster.messages import ASSIGN, SCORE, TEST
from distbelief.algorithms.sandblaster.portions import Portions, cut
from distbelief.algorithms.sandblaster.replica import Replica
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.sandblaster.worker import Worker
from distbelief.algorithms.serving import Serving
from distbelief.algorithms.settings import Evaluate
from distbelief.comm.endpoint import Endpoint, Window
from distbelief.nn.arena import Arena
from distbelief.partition import Peers
from distbelief.server import Placement
from distbelief.server.vectors import VectorService, read_parameters

# The ranks of a replica wait for each other so long, in timeouts: longer than the coordinator waits for the replica.
MEET = 1 / 2


def train(
    endpoint: Endpoint,
    roles: Roles,
    problem: Problem,
    sandblaster: Sandblaster,
    evaluate: Evaluate,
    listener: Listener,
    timeout: float = 300.0,
    keeper: Keeper | None = None,
) -> Outcome:
    """Play this rank's roles until the job is done. Collective over the endpoint.

    `timeout`: seconds that any one wait may take, before DeadlineExpired says who waited for whom. `keeper`: takes the
    parameters if replicas are cut (`roles.cut`); None: the outcome of the coordinator's rank has them, as it does else.
    """
    rank = endpoint.rank
    model = problem.model()
    placement = Placement(model.layout.size, len(roles.shards))
    names = (*sandblaster.method.vectors, GOOD)
    place = roles.place(rank)
    whole = roles.cut is None or place is None
    read = problem if whole else for_partition(problem, problem.cut(roles.partitions), place.partition)
    data = _data(read, sandblaster, roles)

    shard = roles.shards.index(rank) if rank in roles.shards else None
    exposed = 0 if shard is None else placement.intervals[shard].size * np.dtype(model.dtype).itemsize
    window = endpoint.window(exposed)
    orders = Orders(endpoint, roles.coordinator, timeout)
    beside: list[Part] = []
    if shard is not None:
        interval = placement.intervals[shard]
        values = np.empty(interval.size, model.dtype)
        begin(model, problem.seed, values, interval.start)
        beside.append(VectorService(endpoint, window, interval, values, names, roles.coordinator, timeout))
    if rank != roles.coordinator:
        parts = [*beside, *_replica(endpoint, window, placement, roles, problem, model, data, timeout, beside)]
        serve(endpoint, [*parts, orders], strangers=roles.cut is not None)
        if not orders.rank_is_missing:
            window.free()
        return Outcome(orders.failed, rank_missing=orders.rank_is_missing)

    portions = {kind: cut for kind, (_, cut) in data.items()}
    coordinator = Coordinator(endpoint, roles, names, sandblaster, portions, timeout, beside)
    beside = list(coordinator.parts)
    coordinator.parts += _replica(endpoint, window, placement, roles, problem, model, data, timeout, beside)
    size = model.layout.size * np.dtype(model.dtype).itemsize
    batches = Batches(len(portions[ASSIGN]), sandblaster.batch)
    conductor = Conductor(
        coordinator, sandblaster.method, batches, sandblaster.stop, evaluate, listener, endpoint.clock, size
    )
    conductor.run()
    test_score = coordinator.test() if TEST in portions and conductor.fault is None else None
    # The work is done; only now this rank sees the result, to keep it.
    if keeper is None or roles.cut is None:
        result = Arena(model.layout, model.dtype)
        read_parameters(endpoint, window, placement, roles.shards, result.flat, timeout)
    else:
        _keep(keeper, endpoint, window, placement, roles.shards, model.dtype, timeout)
        result = keeper.parameters
    complete = coordinator.dismiss(failed=conductor.fault is not None)
    if complete:
        window.free()
    fault = conductor.fault
    return Outcome(fault is not None, result, conductor.latest, fault, conductor.reason, not complete, test_score)


def _data(problem: Problem, sandblaster: Sandblaster, roles: Roles) -> dict[int, tuple[Examples, Portions]]:
    """By kind of work: the examples, and how they are cut into portions. Test examples where replicas are cut."""
    training, held_out = problem.examples(), problem.held_out_examples()
    mixed, seed = sandblaster.batch is not None, problem.seed
    data = {
        ASSIGN: (training, cut(len(training), sandblaster.portion, mixed, seed)),
        SCORE: (held_out, Portions(len(held_out), sandblaster.portion)),
    }
    if roles.cut is not None and (test := problem.test_examples()) is not None:
        data[TEST] = test, Portions(len(test), sandblaster.portion)
    return data


def _replica(
    endpoint: Endpoint,
    window: Window,
    placement: Placement,
    roles: Roles,
    problem: Problem,
    whole: Model,
    data: dict[int, tuple[Examples, Portions]],
    timeout: float,
    beside: Sequence[Part],
) -> list[Part]:
    """The replica's part on this rank, if it is of one. `beside`: the other parts of the rank."""
    place = roles.place(endpoint.rank)
    if place is None:
        return []
    head, *followers = roles.ranks[place.replica]
    model, peers, intervals = whole, None, None
    if roles.cut is not None:
        # While it waits for its peers, the rank serves: others may wait for its shard.
        here = Serving(endpoint, beside) if beside else endpoint
        peers = Peers(here, roles.ranks[place.replica], MEET * timeout)
        cut = problem.cut(roles.partitions)
        model, intervals = cut.model(peers), cut.intervals[place.partition]
    worker = Worker(endpoint, window, placement, roles.shards, model, data, timeout, peers, intervals)
    if place.partition:
        return [Follower(endpoint, head, worker, timeout)]
    return [Replica(endpoint, roles.coordinator, place.replica, worker, timeout, followers)]


def _keep(
    keeper: Keeper,
    endpoint: Endpoint,
    window: Window,
    placement: Placement,
    shards: Sequence[int],
    dtype: np.dtype,
    timeout: float,
) -> None:
    """Hand the parameters to `keeper`, shard by shard."""
    keeper.begin()
    for interval in placement.intervals:
        values = np.empty(interval.size, dtype)
        read_parameters(endpoint, window, placement, shards, values, timeout, [interval])
        keeper.add(interval.start, values)
    keeper.end()


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
