"""Fetches and pushes layer by layer, cut into many pieces: the same truth, gradients that leave early, and NaNs."""

import io

import numpy as np
import pytest
from algorithms.digits import Digits, train_in_simulator, train_serially

from distbelief.algorithms import local
from distbelief.algorithms.roles import Roles
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.algorithms.step import Pieces, Step
from distbelief.nn import Dense
from distbelief.nn.arena import Layout
from distbelief.optim import Adagrad, FixedRate
from distbelief.server import Interval, Placement, Server, pieces
from distbelief.server.messages import APPLIED, PAYLOADS

RULE = FixedRate(rate=0.1)


@pytest.fixture(autouse=True)
def many_pieces(monkeypatch):
    """Digits' network has tensors of 2048, 32, 320 and 10 elements."""
    monkeypatch.setattr(pieces, "LEAST", 20)
    monkeypatch.setattr(pieces, "MOST", 500)


class Whole(Digits):
    """Digits whose model says nothing of its layers."""

    def model(self):
        model = super().model()
        by_layers = model.gradient
        model.gradient = lambda parameters, batch, gradient: by_layers(parameters, batch, gradient)
        return model


class Forgetful(Digits):
    """Digits whose model says some things twice, and of its biases not that they are produced."""

    def model(self):
        model = super().model()
        by_layers = model.gradient

        def gradient(parameters, batch, gradient, needed, produced):
            return by_layers(
                parameters,
                batch,
                gradient,
                lambda *names: [needed(*names), needed(*names)],
                lambda w, b, finite: [produced(w), produced(w)],
            )

        model.gradient = gradient
        return model


class Plain(Digits):
    """Digits whose model goes layer by layer, and leaves what accrues to others."""

    def model(self):
        model = super().model()
        by_layers = model.gradient

        def gradient(parameters, batch, gradient, needed, produced):
            return by_layers(parameters, batch, gradient, needed, produced)

        model.gradient = gradient
        return model


@pytest.fixture(scope="module")
def truth():
    return train_serially(Digits(dtype=np.float64), RULE)[0].parameters.flat


@pytest.mark.parametrize("n_fetch", [1, 2, 3])
@pytest.mark.parametrize("n_push", [1, 2])
@pytest.mark.parametrize("latency", [1e-6, 5e-3])
@pytest.mark.parametrize("overlap", [True, False])
def test_one_replica_computes_what_serial_sgd_does(truth, n_fetch, n_push, latency, overlap):
    settings = Downpour(n_fetch=n_fetch, n_push=n_push, overlap=overlap)
    outcomes, heard, _ = train_in_simulator(
        Digits(dtype=np.float64), RULE, ranks=3, shards=2, settings=settings, latency=latency, flops=1e9
    )
    np.testing.assert_allclose(outcomes[0].parameters.flat, truth, rtol=0, atol=1e-12)
    assert heard.evaluations[-1].updates == [-(-94 // n_push)] * 2  # a push is one update, whatever its pieces


@pytest.mark.parametrize("kind", [Digits, Plain, Whole])
@pytest.mark.parametrize(("n_fetch", "n_push"), [(1, 3), (3, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("at_once", [True, False])
def test_so_it_does_whoever_takes_in_its_gradients(monkeypatch, kind, n_fetch, n_push, at_once):
    """The layers themselves, as large ones do; their network; nobody but the replica."""
    monkeypatch.setattr(Dense, "accrues", lambda layer, n: at_once)
    taken = []
    accrue = Dense.accrue
    monkeypatch.setattr(Dense, "accrue", lambda layer, *given: taken.append(layer.name) or accrue(layer, *given))
    settings = Downpour(n_fetch=n_fetch, n_push=n_push)
    problem = kind(batch=4, dtype=np.float64)  # so few that the bounds of their gradients are known
    outcomes, _, _ = train_in_simulator(problem, RULE, ranks=3, shards=2, settings=settings, flops=1e9)
    expected = train_serially(Digits(batch=4, dtype=np.float64), RULE)[0].parameters.flat
    np.testing.assert_allclose(outcomes[0].parameters.flat, expected, rtol=0, atol=1e-12)
    assert bool(taken) == (at_once and kind is Digits)


@pytest.mark.parametrize("roles", [Roles(0, [0, 1], [2]), Roles(0, [1, 2], [2]), Roles(0, [0], [0])], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_so_it_does_when_reads_and_updates_meet(truth, roles, seed):
    """Updates take as long as steps: fetches meet pushes of the same replica that are half applied."""
    draw = np.random.default_rng(seed)
    outcomes, _, _ = train_in_simulator(
        [Digits, Whole, Forgetful, Plain][seed % 4](dtype=np.float64),
        RULE,
        ranks=1 + max(roles.shards + roles.replicas),
        roles=roles,
        settings=Downpour(n_fetch=int(draw.integers(1, 3)), n_push=int(draw.integers(1, 3)), overlap=seed % 2 == 0),
        latency=float(10 ** draw.uniform(-6, -3)),
        memory_bandwidth=float(10 ** draw.uniform(7, 9)),
        flops=1e9,
        jitter=1.0,
        seed=seed,
    )
    np.testing.assert_allclose(outcomes[0].parameters.flat, truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Digits, Whole])
def test_gradients_leave_as_soon_as_they_are_produced(kind):
    """The first piece, of the upper layer, leaves while the lower one still computes."""
    log = io.StringIO()
    problem, flops, batch = kind(batch=50), 1e9, 50
    train_in_simulator(problem, RULE, ranks=2, flops=flops, log=log, latency=1e-7)
    # Columns of the log: time, rank, kind, peer, tag, ...
    lines = [line.split() for line in log.getvalue().splitlines()]
    times = [float(words[0]) for words in lines if words[1:3] == ["1", "send"] and int(words[4]) in PAYLOADS]
    layout = problem.model().layout
    count = len(pieces.cut(Placement(layout.size, 1), [Interval(t.start, t.stop) for t in layout.tensors]))
    lower_backward = 2 * 2 * 2048 * batch / flops
    assert (times[count - 1] - times[0] > 0.9 * lower_backward) == (kind is Digits)


class Deaf:
    """An endpoint on which no message comes."""

    def probe(self, tag):
        return None


@pytest.mark.parametrize("known", [(), ("b",), ("c",), ("b", "c"), ("a", "b", "c")])
def test_a_piece_is_known_to_be_finite_if_all_its_gradients_are(known):
    layout = Layout({"a": (30,), "b": (10,), "c": (10,)})
    heard = {}
    two = [pieces.Piece(0, 0, 30, 0), pieces.Piece(0, 30, 50, 30)]
    step = Step(Deaf(), Pieces(layout, two), 0.0, lambda number: None, heard.__setitem__)
    for name in ("c", "b"):
        step.produced(name, finite=name in known)
    if "a" in known:
        step.produced("a", finite=True)
    step.end(good=True)  # nobody has said anything of others
    assert heard == {0: "a" in known, 1: {"b", "c"} <= set(known)}


@pytest.mark.parametrize(("batch", "looks"), [(4, False), (16, True)])
def test_replicas_look_at_gradients_that_are_not_known_to_be_finite(monkeypatch, batch, looks):
    """With 16 examples there is as much to look at in the activations of these layers as in their gradients."""
    looked = []
    all_finite = local.all_finite
    monkeypatch.setattr(local, "all_finite", lambda values: looked.append(values.size) or all_finite(values))
    train_in_simulator(Digits(batch), RULE, ranks=2)
    assert bool(looked) == looks


def test_several_replicas_learn_with_adagrad_and_bfloat16():
    _, heard, _ = train_in_simulator(
        Digits(),
        Adagrad(rate=0.05),
        ranks=6,
        shards=2,
        settings=Downpour(warmstart=20),
        server=Server(fetch_wire="bfloat16", push_wire="bfloat16"),
        stop=Stop(epochs=12),
        flops=1e8,
        jitter=0.2,
    )
    assert heard.evaluations[-1].accuracy > 0.9


class Overflowing(Digits):
    """Digits whose lower layer has an infinite gradient from some step on, or a `large` one; the loss is finite."""

    def __init__(self, after: int, large: float = np.inf):
        super().__init__()
        self._after = after
        self._large = large

    def model(self):
        model, steps = super().model(), 0
        backward = model.layers[0].backward

        def overflow(parameters, x, y, dy, gradient, *rest):
            nonlocal steps
            steps += 1
            backward(parameters, x, y, dy, gradient, *rest)
            if steps > self._after:
                gradient["dense0.w"][-1, -1] = self._large

        model.layers[0].backward = overflow
        model.layers[0].bounded = lambda *arrays: False
        return model


@pytest.mark.parametrize("model", [Overflowing(7), Overflowing(6, 2e38)], ids=["infinite", "finite"])
def test_no_number_that_is_not_finite_is_pushed_with_others_that_have_accrued(model):
    """The fourth push would be of steps 7 and 8; in the second case their gradients are finite, but not their sum."""
    log, settings = io.StringIO(), Downpour(n_push=2)
    outcomes, _, _ = train_in_simulator(model, RULE, ranks=2, settings=settings, flops=1e8, log=log)
    assert outcomes[0].failed and "step 8 of replica 0" in str(outcomes[0].fault)
    assert np.isfinite(outcomes[0].parameters.flat).all()
    tags = [int(words[4]) for words in map(str.split, log.getvalue().splitlines()) if words[2:3] == ["send"]]
    assert tags.count(APPLIED) == 3


def test_no_number_that_is_not_finite_is_pushed():
    """The pieces above, which are finite, have left; the one with the infinity and those after it never do."""
    log = io.StringIO()
    outcomes, _, _ = train_in_simulator(
        Overflowing(7), RULE, ranks=2, evaluate=Evaluate(every_examples=16), flops=1e8, log=log
    )
    assert [outcome.failed for outcome in outcomes] == [True, True]
    assert "step 8 of replica 0" in str(outcomes[0].fault)
    assert np.isfinite(outcomes[0].parameters.flat).all()
    lines = [line.split() for line in log.getvalue().splitlines()]
    tags = [int(words[4]) for words in lines if words[2:3] == ["send"]]
    sent = sum(tag in PAYLOADS for tag in tags)
    layout = Overflowing(7).model().layout
    whole = len(pieces.cut(Placement(layout.size, 1), [Interval(t.start, t.stop) for t in layout.tensors]))
    assert tags.count(APPLIED) == 7  # a push that is not complete is no update
    assert 7 * whole < sent < 8 * whole
