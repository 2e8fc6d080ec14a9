"""What batch methods have in common: stop rules, listeners, failures; and the simpler methods."""

import math

import msgspec
import numpy as np
import pytest
from optim import objectives
from optim.objectives import Counted, Digits, Quadratic, minimise, vectors_at
from scipy.optimize import rosen, rosen_der

from distbelief.errors import UserError
from distbelief.optim import LBFGS, Armijo, BatchMethod, ConjugateGradients, GradientDescent, StopRules, StrongWolfe

ALL = [LBFGS(), ConjugateGradients(), GradientDescent(), GradientDescent(line_search=StrongWolfe())]
methods = pytest.mark.parametrize("method", ALL, ids=["lbfgs", "conjugate", "descent", "descent wolfe"])
FOREVER = StopRules(gradient_norm=None, relative_decrease=None)


def rosenbrock(x):
    return rosen(x), rosen_der(x)


@methods
@pytest.mark.parametrize("condition", [1, 30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quadratics_converge(method, condition, dtype):
    objective = Quadratic(20, condition)
    norm = 1e-3 if dtype is np.float32 else 1e-6
    result, found = minimise(method, objective, np.ones(20), StopRules(norm, None, evaluations=2000), dtype)
    assert result.reason == "gradient norm" and result.gradient_norm <= norm
    np.testing.assert_allclose(found, objective.minimum, atol=2 * norm)
    np.testing.assert_allclose(result.loss, objective(found)[0], rtol=1e-6)


def test_conjugate_gradients_end_after_as_many_steps_as_a_quadratic_has_dimensions():
    """With line searches that are almost exact they are the linear method."""
    objective = Quadratic(6, 50)
    method = ConjugateGradients(line_search=StrongWolfe(c2=1e-3))
    result, _ = minimise(method, objective, np.zeros(6), StopRules(1e-3, None))
    assert result.iterations <= 7


def test_conjugate_gradients_on_rosenbrock():
    result, found = minimise(ConjugateGradients(), rosenbrock, np.full(10, -1.2), StopRules(1e-7, None))
    np.testing.assert_allclose(np.abs(found), 1, rtol=1e-5)
    assert result.evaluations < 1000


def test_conjugate_gradients_beat_descent_on_softmax_regression():
    digits, stop = Digits(1e-2), StopRules(1e-5, None, evaluations=3000)
    lbfgs, *others = (minimise(method, digits, np.zeros(digits.size), stop)[0] for method in ALL[:3])
    for other in others:
        assert other.reason == "gradient norm" and abs(other.loss - lbfgs.loss) <= 1e-6 * lbfgs.loss
    assert lbfgs.evaluations < others[0].evaluations < others[1].evaluations


@methods
def test_the_result_is_where_the_parameters_are(method):
    for evaluations in range(1, 12):
        stop = StopRules(None, None, evaluations)
        result, found = minimise(method, rosenbrock, np.array([-1.2, 1.0, 0.5]), stop)
        assert result.reason == "evaluations" and result.evaluations == evaluations
        loss, gradient = rosenbrock(found)
        assert math.isclose(loss, result.loss, rel_tol=1e-12)
        assert math.isclose(np.linalg.norm(gradient), result.gradient_norm, rel_tol=1e-12)


@methods
def test_losses_never_rise_as_evaluations_are_added(method):
    ends = [
        minimise(method, rosenbrock, np.array([-1.2, 1.0]), StopRules(None, None, evaluations))[0].loss
        for evaluations in range(1, 30)
    ]
    assert all(after <= before for before, after in zip(ends, ends[1:], strict=False)) and ends[-1] < ends[0]


def test_seconds_are_those_of_the_clock():
    time = iter(range(10_000))
    told = []
    stop = StopRules(None, None, seconds=50)
    result, _ = minimise(LBFGS(), rosenbrock, np.full(50, -1.2), stop, listener=told.append, clock=lambda: next(time))
    assert result.reason == "seconds"
    seconds = [evaluation.seconds for evaluation in told]
    assert seconds == sorted(seconds) and 40 < seconds[-1] <= 50


@methods
def test_relative_decrease(method):
    told = []
    objective = Quadratic(10, 10)
    stop = StopRules(None, relative_decrease=1e-5)
    result, _ = minimise(method, objective, np.ones(10), stop, listener=told.append)
    assert result.reason == "relative decrease"
    lowest = objective(objective.minimum)[0]
    assert -1e-12 < result.loss - lowest < 0.1
    assert told[-1].loss == result.loss


def test_a_start_at_the_minimum_is_the_end():
    objective = Quadratic(10, 10)
    result, found = minimise(LBFGS(), objective, objective.minimum, StopRules())
    assert (result.reason, result.iterations, result.evaluations) == ("gradient norm", 0, 1)
    np.testing.assert_array_equal(found, objective.minimum)


@methods
def test_a_gradient_that_lies_ends_in_the_line_search(method):
    """The way of the negative gradient leads up."""
    start = np.array([1.0, 2.0])
    result, found = minimise(method, lambda x: (x @ x, -2 * x), start, FOREVER)
    assert result.reason == "line search" and result.iterations == 0
    np.testing.assert_array_equal(found, start)


def test_a_failed_line_search_begins_again_at_the_steepest_descent():
    """Curvature from far away: the history is dropped, and the course goes on from the same point."""
    calls = 0

    def objective(x):
        nonlocal calls
        calls += 1
        sign = -1 if 5 < calls <= 5 + 20 else 1  # one line search that finds no decrease
        loss, gradient = rosenbrock(x)
        return (loss if sign > 0 else 1e9), gradient

    told = []
    result, found = minimise(LBFGS(), objective, np.array([-1.2, 1.0]), StopRules(1e-8, None), listener=told.append)
    assert result.reason == "gradient norm"
    np.testing.assert_allclose(found, 1, rtol=1e-6)
    again = told[25]
    assert again.iteration == told[24].iteration and again.step < 1


@methods
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite_is_the_users_mistake(method, bad):
    with pytest.raises(UserError, match=r"^evaluation 1: .*expected finite numbers$"):
        minimise(method, lambda x: (bad, x), np.ones(3), FOREVER)
    with pytest.raises(UserError, match=r"^evaluation 1: "):
        minimise(method, lambda x: (1.0, x * bad), np.ones(3), FOREVER)


@methods
def test_every_evaluation_is_told(method):
    told, points = [], []

    def objective(x):
        points.append(x.copy())
        return rosenbrock(x)

    result, _ = minimise(method, objective, np.array([-1.2, 1.0]), StopRules(None, None, 25), listener=told.append)
    assert [evaluation.number for evaluation in told] == list(range(1, 26)) and len(points) == 25
    for evaluation, point in zip(told, points, strict=True):
        assert math.isclose(evaluation.loss, rosen(point), rel_tol=1e-12)
        assert math.isclose(evaluation.gradient_norm, np.linalg.norm(rosen_der(point)), rel_tol=1e-12)
    assert told[0].step == 0 and all(evaluation.step > 0 for evaluation in told[1:])
    iterations = [evaluation.iteration for evaluation in told]
    assert set(np.diff(iterations)) <= {0, 1} and result.iterations >= iterations[-1] > 1


@pytest.mark.parametrize(("method", "messages"), [(ConjugateGradients(), 2), (GradientDescent(), 1)])
def test_round_trips_for_a_direction(method, messages):
    vectors = vectors_at(method, np.full(4, -1.2))
    space, counts = Counted(vectors), []
    evaluate = objectives.evaluation(vectors, rosenbrock)

    def evaluated():
        counts.append(len(space.messages))
        return evaluate()

    result = method.minimise(space, evaluated, StopRules(None, None, 40))
    between = np.diff(counts)[1:]  # the slope at a trial, and what leads to the next
    assert set(between) <= {2, 1 + messages} and (between == 1 + messages).sum() >= result.iterations - 1


def test_stop_rules_that_cannot_be_are_refused():
    for key, value in (("gradient_norm", -1), ("relative_decrease", -1), ("evaluations", 0), ("seconds", 0)):
        with pytest.raises(msgspec.ValidationError, match=key):
            msgspec.json.decode(msgspec.json.encode({key: value}), type=StopRules)


@pytest.mark.parametrize("kind", ["lbfgs", "conjugate", "descent"])
def test_a_method_is_what_a_configuration_says(kind):
    text = msgspec.json.encode({"kind": kind, "line_search": {"kind": "armijo", "c1": 0.01}})
    method = msgspec.json.decode(text, type=BatchMethod)
    assert method.line_search == Armijo(c1=0.01)
    assert msgspec.json.decode(msgspec.json.encode(method), type=BatchMethod) == method
