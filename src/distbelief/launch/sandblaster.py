"""Sandblaster, as it is launched: roles for the ranks, where to begin, when to end."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from distbelief import checkpoint
from distbelief.algorithms.progress import Listener, Outcome
from distbelief.algorithms.sandblaster import training
from distbelief.algorithms.sandblaster.batches import Batches
from distbelief.algorithms.sandblaster.portions import Portions
from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.sandblaster.trial import expect_no_chance
from distbelief.comm.endpoint import Endpoint
from distbelief.errors import UserError
from distbelief.launch.job import Job
from distbelief.launch.roles import assign_for, count_of, expect_parameters
from distbelief.nn.arena import Arena
from distbelief.report import PARAMETERS


class Warmstarted:
    """A problem that begins at given parameters, and is otherwise the same (algorithms.model.Problem). Local."""

    def __init__(self, problem: Any, beginning: Arena):
        self._problem = problem
        self._beginning = beginning

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def model(self) -> Any:
        model = self._problem.model()
        model.initialise = lambda parameters, seed: np.copyto(parameters.flat, self._beginning.flat)
        model.initialise_interval = self._fill
        return model

    def _fill(self, values: np.ndarray, seed: int, start: int) -> None:
        np.copyto(values, self._beginning.flat[start : start + values.size])


def check(job: Job, rank: int, ranks: int) -> None:
    settings, server = job.settings.sandblaster, job.settings.server
    for key in ("fetch_wire", "push_wire"):
        if (wire := getattr(server, key)) != "native":
            raise UserError(f"server.{key}: {wire}, expected native: Sandblaster's vectors travel in full")
    roles = None if ranks == 1 else assign_for(job, ranks)
    examples = job.problem.training_examples
    batch = examples if settings.batch is None else int(settings.batch.fraction * examples)
    if batch < settings.portion:
        raise UserError(f"sandblaster.portion: {settings.portion}, expected at most {batch}, the examples in a batch")
    if rank == 0:
        expect_parameters(server, job)
    if settings.warmstart is not None:
        _beginning(job)
    if roles is None or roles.place(rank) is not None:
        job.try_out(0, 1)
    if roles is not None and roles.cut is not None:
        job.problem.cut(roles.partitions)  # finds layers that cannot be cut; and in what can be, there is no chance
    elif roles is None or rank in roles.replicas:
        expect_no_chance(job.problem)


def cast(job: Job, ranks: int) -> str:
    method = job.settings.sandblaster.method.__struct_config__.tag
    examples, portions = job.problem.training_examples, _portions(job)
    what = f"{examples} examples in {count_of(len(portions), 'portion')}"
    if ranks == 1:
        return f"Sandblaster ({method}) on one rank: {what}"
    roles = assign_for(job, ranks)
    beside = "," if roles.coordinator not in roles.shards else " and"
    between = " beside" if job.settings.server.place == "beside" else ","
    shards, replicas = count_of(len(roles.shards), "shard"), count_of(len(roles.replicas), "replica")
    if roles.cut is not None:
        replicas += f" of {roles.partitions} ranks each"
    return f"Sandblaster ({method}) on {ranks} ranks: coordinator{beside} {shards}{between} {replicas}, {what}"


def goal(job: Job) -> tuple[float, float]:
    rules = _settings(job).stop
    portions = _portions(job)
    batch = Batches(len(portions), job.settings.sandblaster.batch).current
    return (rules.evaluations or math.inf) * sum(map(portions.count, batch)), rules.seconds or math.inf


def train(endpoint: Endpoint | None, job: Job, listener: Listener | None) -> Outcome:
    problem = job.problem
    if job.settings.sandblaster.warmstart is not None:
        problem = Warmstarted(problem, _beginning(job))
    settings, evaluate = _settings(job), job.settings.evaluate
    if endpoint is None or endpoint.size == 1:
        return training.train_alone(problem, settings, evaluate, listener)
    roles = assign_for(job, endpoint.size)
    keeper = job.keeper if endpoint.rank == 0 and roles.cut is not None else None
    return training.train(endpoint, roles, problem, settings, evaluate, listener, job.timeout, keeper)


def _portions(job: Job) -> Portions:
    return Portions(job.problem.training_examples, job.settings.sandblaster.portion)


def _settings(job: Job) -> Sandblaster:
    """With the job's own ends, epochs and seconds, among the rules of the method."""
    settings, stop = job.settings.sandblaster, job.settings.stop
    if stop is None:
        return settings
    rules = settings.stop
    if stop.epochs is not None:
        share = 1.0 if settings.batch is None else settings.batch.fraction
        most = max(int(stop.epochs / share), 1)
        rules = msgspec.structs.replace(rules, evaluations=min(most, rules.evaluations or most))
    if stop.seconds is not None:
        rules = msgspec.structs.replace(rules, seconds=min(stop.seconds, rules.seconds or stop.seconds))
    return msgspec.structs.replace(settings, stop=rules)


def _beginning(job: Job) -> Arena:
    """The parameters of a warmstart: a file, or what a run has left in its folder. Raises UserError."""
    path = Path(job.settings.sandblaster.warmstart)
    model = job.problem.model()
    try:
        return checkpoint.load(path / PARAMETERS if path.is_dir() else path, model.layout, model.dtype)
    except UserError as error:
        raise UserError(f"sandblaster.warmstart: {error}") from None
