"""A batch method of the tests' own: steepest descent with backtracking (optim.method.Method)."""

import math
import time
from dataclasses import dataclass

from distbelief.optim.method import Evaluation, Result
from distbelief.optim.space import GRADIENT, PARAMETERS, Combine, Dots, copy


@dataclass(frozen=True)
class Descent:
    """Doubles its step after each success, and takes a quarter after each failure (Armijo, 1e-4)."""

    rate: float = 1.0
    iterations: int = 5

    vectors = (PARAMETERS, GRADIENT, "base", "base gradient")

    def minimise(self, space, evaluate, stop, listener=lambda step: None, advance=None, clock=time.monotonic):
        began, number, rate = clock(), 0, self.rate

        def look(iteration, step):
            nonlocal number
            number += 1
            loss = evaluate()
            norm = math.sqrt(space.run([Dots((GRADIENT,), (GRADIENT,))])[0][0, 0]) if math.isfinite(loss) else math.nan
            listener(Evaluation(number, iteration, loss, norm, step, clock() - began))
            return loss, norm

        loss, norm = look(0, 0.0)
        for iteration in range(self.iterations):
            space.run([copy("base", PARAMETERS), copy("base gradient", GRADIENT)])
            while True:
                space.run([Combine(PARAMETERS, (1.0, -rate), ("base", "base gradient"))])
                new, new_norm = look(iteration, rate)
                if new <= loss - 1e-4 * rate * norm**2:
                    break
                rate /= 4
            loss, norm, rate = new, new_norm, 2 * rate
            if advance is not None and advance():
                loss, norm = look(iteration + 1, 0.0)
        return Result(loss, norm, self.iterations, number, "evaluations")
