"""Sandblaster's roles on simulated clusters, without a method: evaluations at given points."""

from dataclasses import dataclass

import numpy as np

from distbelief.algorithms.coordination import Orders
from distbelief.algorithms.loop import serve
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.sandblaster.coordinator import Coordinator
from distbelief.algorithms.sandblaster.messages import ASSIGN, SCORE
from distbelief.algorithms.sandblaster.portions import Portions
from distbelief.algorithms.sandblaster.replica import Replica
from distbelief.algorithms.sandblaster.settings import Sharing
from distbelief.algorithms.sandblaster.worker import Worker
from distbelief.comm.sim import Cluster
from distbelief.nn.arena import Layout
from distbelief.optim.space import GRADIENT, PARAMETERS, Combine
from distbelief.server import Placement
from distbelief.server.vectors import VectorService

NAMES = (PARAMETERS, GRADIENT, "step")
SHIFT = 0.125
"""What a second evaluation adds to every parameter times itself."""


@dataclass
class Rows:
    """A minibatch: rows of a matrix, and targets."""

    a: np.ndarray
    b: np.ndarray

    @property
    def size(self) -> int:
        return len(self.b)


class LeastSquares:
    """The mean over examples of (a.w - b)^2 / 2 + cos(a.w): a model with a known gradient, float64."""

    dtype = np.dtype(np.float64)

    def __init__(self, width: int, flops: float = 1000.0):
        self.layout = Layout({"w": (width,)})
        self._flops = flops

    def gradient(self, parameters, batch, gradient) -> float:
        z = batch.a @ parameters.flat
        gradient.flat[:] = batch.a.T @ (z - batch.b - np.sin(z)) / batch.size
        return float(np.mean((z - batch.b) ** 2 / 2 + np.cos(z)))

    def score(self, parameters, batch):
        z = batch.a @ parameters.flat
        return float(np.sum((z - batch.b) ** 2 / 2 + np.cos(z))), float(np.sum(z > batch.b))

    def flops(self, examples: int) -> float:
        return self._flops * examples


class Table:
    """Examples that can be read by position (sandblaster.portions.Examples)."""

    def __init__(self, examples: int, width: int, minibatch: int, seed: int = 0):
        random = np.random.default_rng(seed)
        self.a = random.standard_normal((examples, width))
        self.b = random.standard_normal(examples)
        self._minibatch = minibatch

    def __len__(self) -> int:
        return len(self.b)

    def by(self, replica: int) -> "Table":
        """These examples as `replica` reads them."""
        return self

    def read_ahead(self, positions):
        pass

    def read(self, positions):
        for start in range(0, len(positions), self._minibatch):
            rows = positions[start : start + self._minibatch]
            yield Rows(self.a[rows], self.b[rows])


def serial(model: LeastSquares, table: Table, w: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient over all examples at once, by NumPy alone."""
    z = table.a @ w
    return float(np.mean((z - table.b) ** 2 / 2 + np.cos(z))), table.a.T @ (z - table.b - np.sin(z)) / len(table)


def beginning(width: int) -> np.ndarray:
    return np.linspace(-1, 1, width)


@dataclass
class Done:
    """What a run has left."""

    losses: list[float]
    gradients: list[np.ndarray]
    """By evaluation: from all shards."""
    scores: list[tuple[float, float | None]]
    accounts: list
    seconds: list[float]
    cluster: Cluster
    complete: bool = False
    """Whether all replicas answered at the end."""


def run(
    *,
    shards: int,
    replicas: int,
    sharing: Sharing,
    table: Table,
    held_out: Table | None = None,
    model: LeastSquares | None = None,
    evaluations: int = 2,
    apart: bool = False,
    timeout: float = 1e3,
    kills: dict[int, float] | None = None,
    kill_rank: tuple[int, float] | None = None,
    **cluster,
) -> Done:
    """Evaluate at `beginning`, and then at points that differ from it.

    `kills`: replica -> virtual time; `kill_rank`: a rank of any role, and when.
    `apart`: the coordinator has a rank of its own, the last one.
    """
    width = table.a.shape[1]
    model = model or LeastSquares(width)
    held_out = held_out or table
    ranks = shards + replicas + apart
    roles = Roles(ranks - 1 if apart else 0, list(range(shards)), list(range(shards, shards + replicas)))
    placement = Placement(width, shards)
    done = Done([], [], [], [], [], Cluster(ranks, **cluster))
    kept: dict[int, list[np.ndarray]] = {shard: [] for shard in range(shards)}
    portions = {ASSIGN: Portions(len(table), sharing.portion), SCORE: Portions(len(held_out), sharing.portion)}

    def role(endpoint):
        rank, parts = endpoint.rank, []
        shard = roles.shards.index(rank) if rank in roles.shards else None
        window = endpoint.window(0 if shard is None else placement.intervals[shard].size * 8)
        orders = Orders(endpoint, roles.coordinator, timeout)
        if shard is not None:
            start, stop = placement.intervals[shard]
            values = beginning(width)[start:stop]
            service = VectorService(
                endpoint, window, placement.intervals[shard], values, NAMES, roles.coordinator, timeout
            )
            kept[shard] = service.vectors
            parts.append(service)
        if rank in roles.replicas:
            number = roles.replicas.index(rank)
            data = {ASSIGN: (table.by(number), portions[ASSIGN]), SCORE: (held_out, portions[SCORE])}
            worker = Worker(endpoint, window, placement, roles.shards, model, data, timeout)
            parts.append(Replica(endpoint, roles.coordinator, number, worker, timeout))
        if rank != roles.coordinator:
            serve(endpoint, [*parts, orders])
            assert shard is None or not service.holding
            return
        coordinator = Coordinator(endpoint, roles, NAMES, sharing, portions, timeout, parts)
        coordinator.space.run([])
        for number in range(evaluations):
            if number:
                # Every parameter times (1 + SHIFT): a step that keeps to the shards.
                coordinator.space.run([Combine(PARAMETERS, (1.0, SHIFT), (PARAMETERS, PARAMETERS))])
            began = endpoint.clock()
            done.losses.append(coordinator.evaluate(range(len(portions[ASSIGN]))))
            done.seconds.append(endpoint.clock() - began)
            coordinator.space.run([])  # the gradient is in place
            done.gradients.append(np.concatenate([kept[s][GRADIENT].copy() for s in range(shards)]))
            done.accounts.append(coordinator.accounts)
        done.scores.append(coordinator.score())
        done.complete = coordinator.dismiss(failed=False)

    for replica, at in (kills or {}).items():
        done.cluster.kill(roles.replicas[replica], at)
    if kill_rank is not None:
        done.cluster.kill(*kill_rank)
    done.cluster.run(role)
    return done
