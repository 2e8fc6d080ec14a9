"""Batches that change as a method goes: pairs of s and y are of one batch."""

import numpy as np
import pytest
from optim.objectives import Counted, Digits, Quadratic, minimise, vectors_at

from distbelief.errors import UserError
from distbelief.optim import LBFGS, ConjugateGradients, GradientDescent, StopRules, StrongWolfe
from distbelief.optim.space import Swap

FOREVER = StopRules(gradient_norm=None, relative_decrease=None)


class Quadratics:
    """As many objectives of one minimum as there are batches; batch k until the method has advanced k times."""

    def __init__(self, size=12, batches=4):
        self.parts = [Quadratic(size, 5, seed) for seed in range(batches)]
        self.minimum = self.parts[0].minimum
        for part in self.parts:
            part.b = part.matrix @ self.minimum
        self.turn = 0

    @property
    def matrix(self):
        return self.parts[self.turn % len(self.parts)].matrix

    def __call__(self, x):
        return self.parts[self.turn % len(self.parts)](x)

    def advance(self):
        self.turn += 1
        return True


class Watched(Counted):
    """Copies each pair when it has been formed: ORIGIN and PREVIOUS become s and y."""

    def __init__(self, vectors):
        super().__init__(vectors)
        self.pairs = []

    def run(self, commands):
        answers = super().run(commands)
        for command in commands:
            if isinstance(command, Swap) and command.other.startswith("y"):
                slot = command.other[1:]
                self.pairs.append((self.vectors["s" + slot].copy(), self.vectors["y" + slot].copy()))
        return answers


def test_a_pair_is_of_one_batch():
    """y = A s, with the matrix of one of the batches, for every pair; they take turns."""
    objective, method = Quadratics(), LBFGS(history=4)
    vectors = vectors_at(method, np.zeros(12))
    space = Watched(vectors)

    def evaluate():
        loss, vectors["gradient"][:] = objective(vectors["parameters"])
        return loss

    method.minimise(space, evaluate, StopRules(None, None, 40), advance=objective.advance)
    assert len(space.pairs) > 8
    for number, (s, y) in enumerate(space.pairs):
        np.testing.assert_allclose(y, objective.parts[number % 4].matrix @ s, rtol=1e-9, atol=1e-9 * np.abs(y).max())


@pytest.mark.parametrize("method", [LBFGS(), ConjugateGradients(), GradientDescent()])
def test_batches_of_one_minimum_lead_to_it(method):
    objective = Quadratics()
    stop = StopRules(gradient_norm=1e-6, relative_decrease=None, evaluations=1000)
    result, found = minimise(method, objective, np.zeros(12), stop, advance=objective.advance)
    assert result.reason == "gradient norm" and objective.turn > 4
    np.testing.assert_allclose(found, objective.minimum, atol=1e-5)


class Sliding:
    """A batch of digits that moves on by part of its size after every step."""

    def __init__(self, size, shift, told=True):
        self.digits = Digits()
        self.order = np.random.default_rng(0).permutation(self.digits.examples)
        self.size, self.shift, self.told = size, shift, told
        self.turn = 0

    def __call__(self, parameters):
        places = (self.turn * self.shift + np.arange(self.size)) % len(self.order)
        return self.digits(parameters, self.order[places])

    def advance(self):
        self.turn += 1
        return self.told


@pytest.mark.parametrize(("size", "shift"), [(900, 225), (600, 300)])
def test_consistent_pairs_get_near_where_inconsistent_ones_do_not(size, shift):
    """A batch that changes behind the method's back gives it pairs of two batches: it loses its way."""
    lowest, _ = minimise(LBFGS(), Digits(), np.zeros(640), StopRules(1e-5, None))

    def excess(told):
        sliding = Sliding(size, shift, told)
        _, found = minimise(LBFGS(), sliding, np.zeros(640), StopRules(None, None, 100), advance=sliding.advance)
        return sliding.digits(found)[0] - lowest.loss

    consistent, inconsistent = excess(told=True), excess(told=False)
    assert 0 < consistent < 0.1 * lowest.loss
    assert inconsistent > 2 * consistent


def test_growing_batches_end_at_the_answer_of_them_all():
    digits = Digits()
    size = 300

    def objective(parameters):
        return digits(parameters, slice(0, size))

    def advance():
        nonlocal size
        before, size = size, min(size + 250, digits.examples)
        return size > before

    stop = StopRules(1e-5, None)
    told = []
    result, found = minimise(LBFGS(), objective, np.zeros(640), stop, advance=advance, listener=told.append)
    whole, expected = minimise(LBFGS(), digits, np.zeros(640), stop)
    assert abs(result.loss - whole.loss) <= 1e-6 * whole.loss
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert sum(evaluation.step == 0 for evaluation in told) == 1 + 6  # where it began, and at each change


def test_a_change_costs_one_evaluation_at_the_same_point():
    objective = Quadratics()
    points, told = [], []

    def watched(x):
        points.append(x.copy())
        return objective(x)

    minimise(LBFGS(), watched, np.zeros(12), StopRules(None, None, 20), advance=objective.advance, listener=told.append)
    again = [i for i, evaluation in enumerate(told) if i and evaluation.step == 0]
    assert len(again) == objective.turn > 4
    for i in again:
        np.testing.assert_array_equal(points[i], points[i - 1])
        assert told[i].iteration == told[i - 1].iteration + 1


def test_a_batch_that_stays_costs_nothing():
    def run(**more):
        return minimise(LBFGS(), Quadratic(12, 9), np.zeros(12), StopRules(1e-8, None), **more)

    (one, x), (other, y) = run(), run(advance=lambda: False)
    assert one == other and (x == y).all()


def test_a_batch_whose_loss_is_not_finite_is_the_users_mistake():
    objective, broken = Quadratic(5, 3), False

    def advance():
        nonlocal broken
        broken = True
        return True

    with pytest.raises(UserError, match=r"^evaluation \d+: a loss of nan"):
        minimise(
            LBFGS(line_search=StrongWolfe()),
            lambda x: (np.nan if broken else objective(x)[0], objective(x)[1]),
            np.ones(5),
            FOREVER,
            advance=advance,
        )
