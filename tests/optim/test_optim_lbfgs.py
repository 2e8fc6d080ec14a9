"""L-BFGS against a dense two-loop recursion and against SciPy."""

import msgspec
import numpy as np
import pytest
from optim.objectives import Counted, Digits, Quadratic, evaluation, minimise, vectors_at
from scipy.optimize import minimize, rosen, rosen_der

from distbelief.optim import LBFGS, Armijo, BatchMethod, StopRules
from distbelief.optim.lbfgs import QuasiNewton
from distbelief.optim.line_search import Trial
from distbelief.optim.space import DIRECTION, Combine, Dots

EXACT = StopRules(gradient_norm=1e-8, relative_decrease=None)


def rosenbrock(x):
    return rosen(x), rosen_der(x)


def two_loop(pairs, gradient):
    """Nocedal and Wright 2006, algorithm 7.4, on the vectors themselves; pairs of s and y, oldest first."""
    q = gradient.copy()
    alphas = []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q -= alphas[-1] * y
    if pairs:
        s, y = pairs[-1]
        q *= s @ y / (y @ y)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q += s * (alpha - y @ q / (s @ y))
    return -q


class Walk:
    """Points with gradients of a quadratic, given to QuasiNewton as accepted steps."""

    def __init__(self, history, dtype=np.float64, curvature=1e-8):
        self.method = LBFGS(history=history)
        self.objective = Quadratic(40, 100)
        self.random = np.random.default_rng(history)
        self.vectors = vectors_at(self.method, self.random.standard_normal(40), dtype)
        self.directions = QuasiNewton(self.vectors, history, curvature)
        self.form = []
        self.pairs = []
        self.set_gradient(self.objective(self.vectors["parameters"])[1])

    def set_gradient(self, gradient):
        self.vectors["gradient"][:] = gradient

    def step(self, gradient=None):
        """Anywhere, as a line search with luck would; returns whether a pair was formed."""
        v = self.vectors
        v["origin"][:], v["previous"][:] = v["parameters"], v["gradient"]
        v["parameters"][:] += self.random.standard_normal(40)
        self.set_gradient(self.objective(v["parameters"])[1] if gradient is None else gradient)
        s, y = v["parameters"] - v["origin"], v["gradient"] - v["previous"]
        # QuasiNewton looks at slopes only for their difference, s.y, beside the first.
        self.form = self.directions.follow(Trial(1.0, 0.0, float(s @ y) - 1.0), -1.0)
        if self.form:
            self.pairs.append((s, y))
        return bool(self.form)

    def direction(self):
        make, slope, first = self.directions.propose(self.form, np.linalg.norm(self.vectors["gradient"]))
        self.form = []
        self.vectors.run([make])
        return self.vectors[DIRECTION], slope, first


def assert_same_direction(walk, history, tolerance=1e-10):
    direction, slope, first = walk.direction()
    gradient = walk.vectors["gradient"].astype(np.float64)
    true = two_loop(walk.pairs[-history:], gradient)
    assert np.linalg.norm(direction - true) <= tolerance * np.linalg.norm(true)
    assert np.isclose(slope, true @ gradient, rtol=max(tolerance, 1e-8))
    assert first == (1.0 if walk.pairs else None)


@pytest.mark.parametrize("history", [1, 2, 3, 5, 10])
def test_directions_equal_the_dense_two_loop_recursion(history):
    """From the first to long after the oldest pairs have been overwritten."""
    walk = Walk(history)
    for _ in range(3 * history + 2):
        assert_same_direction(walk, history)
        assert walk.step()
    assert_same_direction(walk, history)


@pytest.mark.parametrize("history", [1, 3, 10])
def test_a_pair_without_curvature_is_passed_over_and_costs_no_older_one(history):
    walk = Walk(history)
    for number in range(4 * history):
        if number % 3 == 2:
            v = walk.vectors
            bent = v["gradient"] - 0.1 * walk.random.standard_normal(40)
            state = walk.random.bit_generator.state
            s = walk.random.standard_normal(40)  # the step to come
            walk.random.bit_generator.state = state
            assert not walk.step(bent - s * max(0.0, 1.1 * (s @ (bent - v["gradient"])) / (s @ s)))
        else:
            assert walk.step()
        assert_same_direction(walk, history)


def test_the_curvature_guard_takes_what_it_says():
    """s.y > curvature |s.g|, both divided by the step's length."""
    follow = QuasiNewton(Counted(None), 3, curvature=0.5).follow
    assert follow(Trial(1.0, 0.0, -0.49), -1.0)
    assert not follow(Trial(1.0, 0.0, -0.51), -1.0)
    assert not follow(Trial(7.0, 0.0, -1.5), -1.0)


def test_forgotten_pairs_play_no_part():
    walk = Walk(4)
    for _ in range(6):
        walk.step()
        walk.direction()
    assert walk.directions.restart()
    assert not walk.directions.restart()
    walk.pairs.clear()
    for _ in range(6):
        assert_same_direction(walk, 4)
        walk.step()


def test_a_gradient_that_is_not_finite_does_no_harm_after_a_restart():
    walk = Walk(3)
    walk.step()
    walk.set_gradient(np.full(40, np.inf))
    with np.errstate(invalid="ignore"):
        _, slope, _ = walk.direction()
    assert not np.isfinite(slope)
    walk.directions.restart()
    walk.pairs.clear()
    walk.set_gradient(np.ones(40))
    for _ in range(4):
        assert_same_direction(walk, 3)
        walk.step()


def test_directions_in_float32():
    walk = Walk(5, np.float32)
    for _ in range(12):
        walk.step()
        assert_same_direction(walk, 5, tolerance=1e-5)


@pytest.mark.parametrize("history", [1, 10])
def test_a_direction_takes_two_round_trips(history):
    """One for all new dot products, one for the combination and the first trial; each trial one for its slope."""
    method = LBFGS(history=history)
    vectors = vectors_at(method, np.full(8, -1.2))
    space = Counted(vectors)
    evaluate = evaluation(vectors, rosenbrock)
    log = []

    def evaluated():
        log.append(len(space.messages))
        return evaluate()

    result = method.minimise(space, evaluated, EXACT)
    assert result.evaluations == len(log) > result.iterations > 3 * history
    between = np.diff(log)
    # From one evaluation to the next: the slope and the next trial; where a step is accepted, the new dots too.
    assert set(between[1:]) == {2, 3} and (between == 3).sum() == result.iterations
    for message in space.messages:
        assert sum(isinstance(command, Dots) for command in message) <= 1
        assert sum(isinstance(command, Combine) and len(command.vectors) > 2 for command in message) <= 1


def test_new_products_are_few():
    """Rows of a message: y and the gradient; columns: what is remembered, and the gradient."""
    method = LBFGS(history=3)
    vectors = vectors_at(method, np.full(8, -1.2))
    space = Counted(vectors)
    method.minimise(space, evaluation(vectors, rosenbrock), EXACT)
    blocks = [(len(c.rows), len(c.columns)) for message in space.messages for c in message if isinstance(c, Dots)]
    assert max(rows for rows, _ in blocks) == 2 and max(columns for _, columns in blocks) == 7


@pytest.mark.parametrize("size", [2, 3, 10, 50])
def test_rosenbrock(size):
    start = np.where(np.arange(size) % 2, 1.0, -1.2)
    result, found = minimise(LBFGS(), rosenbrock, start, EXACT)
    scipy = minimize(rosenbrock, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 0, "maxfun": 9999})
    assert result.reason == "gradient norm" and result.gradient_norm <= 1e-8
    np.testing.assert_allclose(found, 1, rtol=1e-6)
    assert result.evaluations <= 1.5 * scipy.nfev


@pytest.mark.parametrize("condition", [1, 1e2, 1e4])
def test_quadratics(condition):
    objective = Quadratic(30, condition)
    result, found = minimise(LBFGS(), objective, np.zeros(30), StopRules(gradient_norm=1e-7, relative_decrease=None))
    assert result.reason == "gradient norm"
    np.testing.assert_allclose(found, objective.minimum, atol=1e-6)


@pytest.mark.parametrize("method", [LBFGS(), LBFGS(history=3), LBFGS(line_search=Armijo())])
@pytest.mark.parametrize("penalty", [1e-2, 1e-3])
def test_softmax_regression_as_scipy_finds_it(method, penalty):
    digits = Digits(penalty)
    options = {"maxcor": method.history, "gtol": 1e-6, "ftol": 1e-13, "maxiter": 5000}
    scipy = minimize(digits, np.zeros(digits.size), jac=True, method="L-BFGS-B", options=options)
    result, found = minimise(method, digits, np.zeros(digits.size), StopRules(1e-5, None))
    assert result.reason == "gradient norm"
    assert abs(result.loss - scipy.fun) <= 1e-6 * scipy.fun
    assert result.evaluations <= 1.5 * scipy.nfev
    np.testing.assert_allclose(found, scipy.x, atol=0.01)


def test_softmax_regression_in_float32():
    digits = Digits()
    exact, _ = minimise(LBFGS(), digits, np.zeros(digits.size), StopRules(1e-5, None))
    result, _ = minimise(LBFGS(), digits, np.zeros(digits.size), StopRules(1e-5, None), np.float32)
    assert abs(result.loss - exact.loss) <= 1e-6 * exact.loss
    assert result.evaluations <= 1.5 * exact.evaluations


def test_where_the_loss_is_not_finite_the_line_search_backs_off():
    """The first step leads out of the domain of the logarithm."""

    def barrier(x):
        with np.errstate(all="ignore"):
            return float(np.sum(x - np.log(x))), 1 - 1 / x

    for first in (1.0, 1e3):
        result, found = minimise(LBFGS(initial_step=first), barrier, np.array([0.05, 4, 9]), EXACT)
        assert result.reason == "gradient norm"
        np.testing.assert_allclose(found, 1, rtol=1e-7)


@pytest.mark.parametrize(("key", "value"), [("history", 0), ("history", -1), ("curvature", -1), ("initial_step", 0)])
def test_impossible_settings_are_refused(key, value):
    with pytest.raises(msgspec.ValidationError, match=key):
        msgspec.json.decode(msgspec.json.encode({"kind": "lbfgs", key: value}), type=BatchMethod)


def test_vectors_are_named_before_the_start():
    expected = ["parameters", "gradient", "origin", "previous", "direction", "s0", "s1", "y0", "y1"]
    assert sorted(LBFGS(history=2).vectors) == sorted(expected)
