"""Line searches on functions of one number."""

import math

import msgspec
import numpy as np
import pytest

from distbelief.optim import Armijo, StrongWolfe
from distbelief.optim.line_search import LineSearch, Trial

# phi, its derivative; all descend from 0.
FUNCTIONS = {
    "parabola": (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
    "quartic": (lambda t: (t - 1) ** 4 - t, lambda t: 4 * (t - 1) ** 3 - 1),
    "waves": (lambda t: np.cos(3 * t) + 0.2 * (t - 4) ** 2, lambda t: -3 * np.sin(3 * t) + 0.4 * (t - 4)),
    "steep then flat": (lambda t: -t / (t**2 + 2), lambda t: (t**2 - 2) / (t**2 + 2) ** 2),  # More, Thuente 1994, 5.1
    "flat at 0": (lambda t: (t + 0.1) ** 5 - 2 * (t + 0.1) ** 4, lambda t: 5 * (t + 0.1) ** 4 - 8 * (t + 0.1) ** 3),
    "barrier": (
        lambda t: -np.log(1 - t) - 3 * t if t < 1 else math.inf,
        lambda t: 1 / (1 - t) - 3 if t < 1 else math.nan,
    ),
}
functions = pytest.mark.parametrize("function", FUNCTIONS)
firsts = pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 7.0, 1e3])


def run(search: LineSearch, phi, derivative, first):
    """The accepted step and all trials."""
    trials = []
    steps = search.search(float(phi(0)), float(derivative(0)), first)
    step = next(steps)
    while True:
        trials.append(step)
        try:
            step = steps.send(Trial(step, float(phi(step)), float(derivative(step))))
        except StopIteration as end:
            return end.value, trials


@functions
@firsts
@pytest.mark.parametrize("c2", [0.9, 0.1])
def test_strong_wolfe_conditions_hold(function, first, c2):
    phi, derivative = FUNCTIONS[function]
    step, trials = run(StrongWolfe(c2=c2, trials=50), phi, derivative, first)
    assert step == trials[-1] > 0
    assert phi(step) <= phi(0) + 1e-4 * step * derivative(0)
    assert abs(derivative(step)) <= c2 * abs(derivative(0))


@functions
@firsts
def test_armijo_condition_holds(function, first):
    phi, derivative = FUNCTIONS[function]
    step, trials = run(Armijo(trials=50), phi, derivative, first)
    assert step == trials[-1] > 0
    assert phi(step) <= phi(0) + 1e-4 * step * derivative(0)
    ratios = np.divide(trials[1:], trials[:-1])
    assert ((ratios > 0.0999) & (ratios <= 0.5)).all()


@pytest.mark.parametrize("search", [StrongWolfe(), Armijo()])
def test_a_first_step_that_will_do_is_taken_at_once(search):
    phi, derivative = FUNCTIONS["parabola"]
    assert run(search, phi, derivative, 3.3) == (3.3, [3.3])


def test_a_parabola_is_minimised_by_the_first_interpolation():
    phi, derivative = FUNCTIONS["parabola"]
    step, trials = run(StrongWolfe(c2=0.01), phi, derivative, 4.0)
    assert math.isclose(step, 3, rel_tol=1e-12) and len(trials) == 2
    step, trials = run(Armijo(), phi, derivative, 7.0)
    assert math.isclose(step, 3, rel_tol=1e-12) and len(trials) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("search", [StrongWolfe(), Armijo()])
def test_what_is_not_finite_is_a_step_too_long(search, bad):
    def phi(t):
        return (t - 1) ** 2 if t < 2 else bad

    def derivative(t):
        return 2 * (t - 1) if t < 2 else bad

    step, trials = run(search, phi, derivative, 100.0)
    assert 0 < step < 2 and phi(step) < phi(0)
    assert all(later < 100 for later in trials[1:])


@pytest.mark.parametrize("search", [StrongWolfe(), Armijo()])
def test_a_slope_that_is_not_finite_is_a_step_too_long(search):
    step, _ = run(search, lambda t: (t - 1) ** 2, lambda t: 2 * (t - 1) if t < 2 else math.nan, 2.0)
    assert 0 < step < 2


@pytest.mark.parametrize("search", [StrongWolfe(trials=6), Armijo(trials=6)])
def test_no_decrease_anywhere_is_told_after_the_last_trial(search):
    step, trials = run(search, lambda t: t, lambda t: -1.0, 1.0)  # the slope lies
    assert step is None and len(trials) == 6


def test_trials_that_run_out_give_the_best_step():
    """Never flat enough: -t falls for ever."""
    step, trials = run(StrongWolfe(trials=4), lambda t: -t, lambda t: -1.0, 1.0)
    assert step == trials[-1] == max(trials) and len(trials) == 4


def test_constants_in_the_wrong_order_are_refused():
    for text in ('{"kind": "wolfe", "c1": 0.5, "c2": 0.5}', '{"kind": "wolfe", "c1": 0.9, "c2": 0.1}'):
        with pytest.raises(msgspec.ValidationError, match="c1"):
            msgspec.json.decode(text, type=LineSearch)
    for key, value in (("c1", 0), ("c1", 1), ("trials", 0)):
        with pytest.raises(msgspec.ValidationError, match=key):
            msgspec.json.decode(msgspec.json.encode({"kind": "armijo", key: value}), type=LineSearch)
