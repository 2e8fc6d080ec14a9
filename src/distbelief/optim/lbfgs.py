"""L-BFGS in its vector-free form (Chen, Wang and Zhou 2014): two messages for a direction.

The first forms the newest pair and brings back its dot products, and the gradient's, with all that is remembered.
The two-loop recursion then runs on scalars: the direction is a combination of the remembered s and y and of the
gradient, and its coefficients are found from their dot products alone. The second message makes the combination,
and takes the first step along it.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Annotated

import msgspec
import numpy as np

from distbelief.optim.course import VECTORS, Course
from distbelief.optim.descent import Direction, Length, descend
from distbelief.optim.line_search import LineSearch, StrongWolfe, Trial
from distbelief.optim.method import Listener, Result, StopRules, ignore
from distbelief.optim.space import (
    DIRECTION,
    GRADIENT,
    ORIGIN,
    PARAMETERS,
    PREVIOUS,
    Advance,
    Combine,
    Command,
    Dots,
    Evaluate,
    Space,
    Swap,
)


class LBFGS(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lbfgs"):
    """Limited-memory BFGS (Liu and Nocedal 1989)."""

    history: Annotated[int, msgspec.Meta(ge=1)] = 10
    """Pairs of s, the change of the parameters, and y, that of the gradient, that are remembered."""
    line_search: LineSearch = StrongWolfe()
    curvature: Annotated[float, msgspec.Meta(ge=0)] = 1e-8
    """A pair is remembered only if s.y > curvature |s.g|, g the gradient where the step began (as in L-BFGS-B, Zhu et
    al. 1997, but for their machine epsilon): s.y <= 0 would make the direction one of ascent."""
    initial_step: Length = 1.0
    """Euclidean length of the first step to try along a steepest descent."""

    @property
    def vectors(self) -> tuple[str, ...]:
        """See `Method.vectors`: 5 + 2 history vectors."""
        slots = range(self.history)
        return VECTORS + tuple(map(_s, slots)) + tuple(map(_y, slots))

    def minimise(
        self,
        space: Space,
        evaluate: Evaluate,
        stop: StopRules,
        listener: Listener = ignore,
        advance: Advance | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Result:
        """See `Method.minimise`."""
        course = Course(space, evaluate, stop, listener, advance, clock)
        directions = QuasiNewton(space, self.history, self.curvature)
        return descend(course, space, directions, self.line_search, self.initial_step)


class QuasiNewton:
    """Pairs of s and y, in slots that are used in turn, and the dot products of everything that they hold.

    The basis of a direction: s of each slot, y of each slot, the gradient: 2 history + 1 vectors.
    """

    def __init__(self, space: Space, history: int, curvature: float = 0.0):
        self._space = space
        self._history = history
        self._curvature = curvature
        self._slots: deque[int] = deque()  # in use, oldest first
        self._fresh: int | None = None  # the slot whose dot products are yet to come
        self._names = [*map(_s, range(history)), *map(_y, range(history)), GRADIENT]
        self._dots = np.zeros((2 * history + 1,) * 2)  # of the basis

    def follow(self, step: Trial, slope: float) -> list[Command]:
        """The commands that form the pair of the step, in the oldest's place if all slots are used."""
        if not step.slope - slope > self._curvature * -slope:  # s.y and s.g, both over the length of the step
            return []
        full = len(self._slots) == self._history
        slot = self._slots.popleft() if full else min(set(range(self._history)) - set(self._slots))
        self._slots.append(slot)
        self._fresh = slot
        # In place, then by name: a vector that has just been read is written for less than another.
        return [
            Combine(ORIGIN, (1.0, -1.0), (PARAMETERS, ORIGIN)),
            Swap(ORIGIN, _s(slot)),
            Combine(PREVIOUS, (1.0, -1.0), (GRADIENT, PREVIOUS)),
            Swap(PREVIOUS, _y(slot)),
        ]

    def change_batch(self) -> None:
        pass

    def restart(self) -> bool:
        known = bool(self._slots)
        self._slots.clear()
        self._dots[:] = 0  # a product that was not finite is not met again
        self._fresh = None
        return known

    def propose(self, form: list[Command], gradient_norm: float) -> Direction:
        gradient = 2 * self._history
        new = [gradient] if self._fresh is None else [self._history + self._fresh, gradient]
        self._fresh = None
        known = [*self._slots, *(self._history + slot for slot in self._slots), gradient]
        rows, columns = (tuple(self._names[i] for i in part) for part in (new, known))
        (dots,) = self._space.run([*form, Dots(rows, columns)])
        self._dots[np.ix_(new, known)] = dots
        self._dots[np.ix_(known, new)] = dots.T
        while self._slots and not self._product(self._slots[-1]) > 0:
            self._slots.pop()  # rounding has eaten the curvature of the newest
        coefficients = self._recursion()
        used = [i for i in known if coefficients[i]]
        make = Combine(DIRECTION, tuple(coefficients[used].tolist()), tuple(self._names[i] for i in used))
        slope = float(coefficients[used] @ self._dots[used, gradient])
        return Direction(make, slope, 1.0 if self._slots else None)

    def _recursion(self) -> np.ndarray:
        """The two-loop recursion (Nocedal and Wright 2006, algorithm 7.4) on coefficients of the basis.

        It meets s.y only of an s and a y no older, and no s.s: so the products of a new s with what was there before
        are never asked for. Where they stand in the matrix, their coefficients are zero.
        """
        m, dots = self._history, self._dots
        coefficients = np.zeros(2 * m + 1)
        coefficients[2 * m] = -1.0
        alphas = {}
        for i in reversed(self._slots):
            alphas[i] = dots[i] @ coefficients / self._product(i)
            coefficients[m + i] -= alphas[i]
        if self._slots:
            newest = self._slots[-1]
            coefficients *= self._product(newest) / dots[m + newest, m + newest]
        for i in self._slots:
            beta = dots[m + i] @ coefficients / self._product(i)
            coefficients[i] += alphas[i] - beta
        return coefficients

    def _product(self, slot: int) -> float:
        """s.y of a pair."""
        return self._dots[slot, self._history + slot]


def _s(slot: int) -> str:
    return f"s{slot}"


def _y(slot: int) -> str:
    return f"y{slot}"
