"""Line searches over phi(t) = f(x + t d), on scalars alone.

A search is a generator: it yields a step to try, is sent the Trial, and returns the step it accepts, or None. A loss
or slope that is not finite counts as a step too long.
"""

import math
from collections.abc import Generator
from typing import Annotated, NamedTuple

import msgspec

Trials = Annotated[int, msgspec.Meta(ge=1)]
Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Rounding = Annotated[float, msgspec.Meta(ge=0, lt=1)]
"""Relative error of a loss: what it rises by less than this is no rise (as in Hager and Zhang 2005, eq. 27). Near the
minimum a loss shows no decrease any more where its gradient still does."""


class Trial(NamedTuple):
    """phi and its derivative at a step."""

    step: float
    loss: float
    slope: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.slope)


Search = Generator[float, Trial, float | None]


class StrongWolfe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="wolfe"):
    """phi(t) <= phi(0) + c1 t phi'(0) and |phi'(t)| <= c2 |phi'(0)| (Nocedal and Wright 2006, algorithms 3.5, 3.6).

    Trials that run out give the best step with a sufficient decrease, if there was one.
    """

    c1: Fraction = 1e-4
    c2: Fraction = 0.9
    trials: Trials = 20
    rounding: Rounding = 1e-12

    def __post_init__(self):
        if self.c1 >= self.c2:
            raise ValueError(f"c1 = {self.c1:g} is not smaller than c2 = {self.c2:g}")

    def search(self, loss: float, slope: float, first: float) -> Search:
        """`loss`, `slope`: phi(0) and phi'(0) < 0; `first`: the first step to try."""
        low, high, step = Trial(0.0, loss, slope), None, first
        for _ in range(self.trials):
            trial = yield step
            if not _decreases(trial, loss, slope, self) or (low.step > 0 or high) and trial.loss >= low.loss:
                high = trial
            elif abs(trial.slope) <= -self.c2 * slope:
                return trial.step
            elif high is None:
                if trial.slope < 0:
                    step, low = _beyond(low, trial), trial
                    continue
                low, high = trial, low
            else:
                if trial.slope * (high.step - low.step) >= 0:
                    high = low
                low = trial
            step = _between(low, high)
            if step in (low.step, high.step):
                break  # nothing lies between
        return low.step or None


class Armijo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="armijo"):
    """Backtracking until phi(t) <= phi(0) + c1 t phi'(0) (Nocedal and Wright 2006, algorithm 3.1)."""

    c1: Fraction = 1e-4
    trials: Trials = 20
    rounding: Rounding = 1e-12

    def search(self, loss: float, slope: float, first: float) -> Search:
        """`loss`, `slope`: phi(0) and phi'(0) < 0; `first`: the first step to try."""
        step = first
        for _ in range(self.trials):
            trial = yield step
            if _decreases(trial, loss, slope, self):
                return step
            if trial.finite:  # the minimum of the parabola through phi(0), phi'(0), phi(t)
                parabola = -slope * step**2 / (2 * (trial.loss - loss - slope * step))
                step = min(max(parabola, 0.1 * step), 0.5 * step)
            else:
                step *= 0.5
        return None


LineSearch = StrongWolfe | Armijo


def _decreases(trial: Trial, loss: float, slope: float, search: LineSearch) -> bool:
    """Whether the trial is finite and shows a sufficient decrease from phi(0) = loss, phi'(0) = slope."""
    return trial.finite and trial.loss <= loss + search.c1 * trial.step * slope + search.rounding * abs(loss)


def _between(low: Trial, high: Trial) -> float:
    """A step inside the bracket: the cubic's minimum, at least a tenth of the bracket from its ends; or the middle."""
    if not high.finite:
        return (low.step + high.step) / 2
    width = high.step - low.step
    fraction = (_cubic_minimum(low, high) - low.step) / width
    return low.step + width * (min(max(fraction, 0.1), 0.9) if math.isfinite(fraction) else 0.5)


def _beyond(before: Trial, last: Trial) -> float:
    """A step past `last`, where the slope is still negative: the cubic's minimum, 1.1 to 4 strides on."""
    stride = last.step - before.step
    strides = (_cubic_minimum(before, last) - last.step) / stride
    return last.step + stride * (min(max(strides, 1.1), 4.0) if strides > 0 else 4.0)


def _cubic_minimum(a: Trial, b: Trial) -> float:
    """Of the cubic with the losses and slopes of both (Nocedal and Wright 2006, eq. 3.59); NaN if it has none."""
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.step - b.step)
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return math.nan
    d2 = math.copysign(math.sqrt(square), b.step - a.step)
    divisor = b.slope - a.slope + 2 * d2
    return b.step - (b.step - a.step) * (b.slope + d2 - d1) / divisor if divisor else math.nan
