"""Serial training against a loop of plain NumPy, and its accounts."""

import itertools

import numpy as np
import pytest
from algorithms.digits import Digits, Heard, train_serially

from distbelief.algorithms.serial import train
from distbelief.algorithms.settings import Evaluate, Stop
from distbelief.nn import Arena
from distbelief.optim import Adagrad, FixedRate, Inverse


def _plain(problem, adagrad: bool, rate: float, epochs: int, factor=lambda step: 1.0) -> dict[str, np.ndarray]:
    """The same training written out: one hidden relu layer, softmax, mean gradients."""
    model = problem.model()
    start = Arena(model.layout, model.dtype)
    model.initialise(start, problem.seed)
    p = {name: start[name].copy() for name in start}
    squares = {name: np.zeros_like(value) for name, value in p.items()}
    step = 0
    for epoch in range(epochs):
        for batch in problem.batches(0, 1).epoch(epoch):
            x, n = batch.x_in, batch.size
            h = np.maximum(p["dense0.w"] @ x + p["dense0.b"][:, None], 0)
            z = p["dense1.w"] @ h + p["dense1.b"][:, None]
            e = np.exp(z - z.max(0))
            dz = e / e.sum(0)
            dz[batch.labels, np.arange(n)] -= 1
            dz /= n
            dh = (p["dense1.w"].T @ dz) * (h > 0)
            gradient = {"dense0.w": dh @ x.T, "dense0.b": dh.sum(1), "dense1.w": dz @ h.T, "dense1.b": dz.sum(1)}
            for name, g in gradient.items():
                squares[name] += g**2
                scale = 1 / np.sqrt(np.where(squares[name] > 0, squares[name], 1)) if adagrad else 1
                p[name] -= rate * factor(step) * g * scale
            step += 1
    return p


@pytest.mark.parametrize("rule", [FixedRate(rate=0.1), Adagrad(rate=0.05)])
def test_it_computes_what_plain_numpy_does(rule):
    problem = Digits(dtype=np.float64)
    outcome, _ = train_serially(problem, rule, Stop(epochs=2))
    expected = _plain(problem, isinstance(rule, Adagrad), rule.rate, 2)
    for name, value in expected.items():
        np.testing.assert_allclose(outcome.parameters[name], value, rtol=0, atol=1e-10)


def test_the_schedule_counts_steps():
    problem, schedule = Digits(dtype=np.float64), Inverse(half=50)
    outcome = train(problem, FixedRate(rate=0.2), Stop(epochs=2), Evaluate(), _Silent(), schedule=schedule)
    expected = _plain(problem, False, 0.2, 2, factor=lambda step: 1 / (1 + step / 50))
    for name, value in expected.items():
        np.testing.assert_allclose(outcome.parameters[name], value, rtol=0, atol=1e-10)


def test_it_evaluates_at_the_beginning_the_marks_and_the_end():
    problem = Digits(batch=50)
    outcome, heard = train_serially(problem, FixedRate(rate=0.1), Stop(epochs=2), Evaluate(every_examples=1000))
    # 1497 examples are 29 batches of 50 and one of 47.
    assert [e.examples for e in heard.evaluations] == [0, 1000, 2047, 2 * problem.training_examples]
    assert [e.step for e in heard.evaluations] == [0, 20, 41, 60]
    assert outcome.evaluation == heard.evaluations[-1]
    assert heard.evaluations[0].train_loss is None
    assert heard.evaluations[-1].loss < 0.7 * heard.evaluations[0].loss


def test_the_time_of_an_evaluation_is_that_of_its_parameters():
    """Nor is the evaluation part of it: the clock is looked at before."""
    ticks = itertools.count()

    class Slow(Digits):
        def held_out(self):
            for _ in range(1000):
                next(ticks)
            return super().held_out()

    heard = Heard()
    train(Slow(), FixedRate(rate=0.1), Stop(epochs=1), Evaluate(), heard, clock=lambda: float(next(ticks)))
    assert heard.evaluations[0].time < 10 and heard.evaluations[-1].time < 1500


def test_it_stops_after_seconds():
    ticks = itertools.count()
    outcome = train(
        Digits(), FixedRate(rate=0.1), Stop(seconds=100.0), Evaluate(), _Silent(), clock=lambda: float(next(ticks))
    )
    assert not outcome.failed
    assert 10 < outcome.evaluation.step < 60, "the clock is looked at a few times in each step"


class _Silent:
    def progress(self, progress): ...

    def evaluated(self, evaluation): ...
