"""A batch method in one process: what the distributed one is measured against."""

import math
import time
from collections.abc import Callable, Sequence

from distbelief.algorithms.model import Problem, accruing
from distbelief.algorithms.sandblaster.accounts import Accounts
from distbelief.algorithms.sandblaster.portions import Portions
from distbelief.algorithms.scoring import score
from distbelief.kernels import all_finite
from distbelief.nn.accrual import Accrual
from distbelief.nn.arena import Arena
from distbelief.optim.space import GRADIENT, PARAMETERS, scale
from distbelief.optim.vectors import Vectors


class Alone:
    """An objective (sandblaster.conduct) whose vectors and examples are all here. All methods are Local."""

    def __init__(
        self,
        problem: Problem,
        portions: Portions,
        names: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ):
        """`names`: of the vectors. PARAMETERS begin as the problem's model does."""
        self._problem = problem
        self._portions = portions
        self.clock = clock
        self._model = problem.model()
        self._examples = problem.examples()
        self.space = Vectors(names, self._model.layout.size, self._model.dtype)
        self.parameters = Arena(self._model.layout, self._model.dtype, self.space[PARAMETERS])
        self._model.initialise(self.parameters, problem.seed)
        self._gradient = accruing(self._model)
        self._minibatch = Arena(self._model.layout, self._model.dtype)
        self.accounts: Accounts | None = None

    def evaluate(self, batch: Sequence[int]) -> float:
        began = self.clock()
        total = Arena(self._model.layout, self._model.dtype, self.space[GRADIENT])
        losses, examples = [], 0
        for portion in batch:
            for minibatch in self._examples.read(self._portions.positions(portion)):
                accrual = Accrual(total, fresh=not losses, weight=minibatch.size)
                loss = self._gradient(self.parameters, minibatch, self._minibatch, accrual)
                losses.append(loss * minibatch.size)
                examples += minibatch.size
        self.space.run([scale(GRADIENT, 1 / examples)])
        self.accounts = Accounts(examples, self.clock() - began, [len(batch)])
        finite = all(map(math.isfinite, losses)) and all_finite(self.space[GRADIENT])
        return math.fsum(losses) / examples if finite else math.nan

    def score(self) -> tuple[float, float | None]:
        return score(self._model, self.parameters, self._problem.held_out())
