"""Synchronous SGD in the simulator: serial SGD with the replicas' minibatches put together is the truth."""

import numpy as np
import pytest
from algorithms.digits import Digits, Heard

from distbelief import Model
from distbelief.adapters.data import UserProblem
from distbelief.algorithms import serial, synchronous
from distbelief.algorithms.settings import Evaluate, Stop
from distbelief.comm.endpoint import DeadlineExpired
from distbelief.comm.sim import Cluster
from distbelief.data import Batch
from distbelief.nn import Arena
from distbelief.optim import Adagrad, Cosine, FixedRate, Momentum


class Joined(Digits):
    """Digits whose one replica sees in each step what `replicas` see together."""

    def __init__(self, replicas: int, **settings):
        super().__init__(**settings)
        self._replicas = replicas
        self._batch *= replicas

    def batches(self, replica: int, replicas: int):
        parts = [
            Digits(self._batch // self._replicas, self._dtype, self.seed).batches(r, self._replicas)
            for r in range(self._replicas)
        ]
        return _JoinedEpochs(parts)


class _JoinedEpochs:
    def __init__(self, parts):
        self._parts = parts

    def epoch(self, number: int):
        epochs = [part.epoch(number) for part in self._parts]
        while batches := [batch for epoch in epochs if (batch := next(epoch, None)) is not None]:
            x_in = np.ascontiguousarray(np.concatenate([batch.x_in for batch in batches], axis=1))
            yield Batch(x_in, np.concatenate([batch.labels for batch in batches]))


def train(problem, rule, ranks, stop=Stop(epochs=2), evaluate=Evaluate(), timeout=20.0, schedule=None, **cluster):
    """The outcomes by rank, every rank's parameters, what rank 0 heard, and the cluster."""
    heard, simulated = Heard(), Cluster(ranks, **cluster)
    kept = {}

    def program(endpoint):
        mine = _Keeping(problem, endpoint.rank, kept)
        listener = heard if endpoint.rank == 0 else None
        return synchronous.train(endpoint, mine, rule, stop, evaluate, listener, timeout, schedule)

    return simulated.run(program), kept, heard, simulated


class _Keeping:
    """A problem whose model keeps the parameters that it is shown last: those of the last evaluation."""

    def __init__(self, problem, rank, kept):
        self._problem, self._rank, self._kept = problem, rank, kept

    def __getattr__(self, name):
        return getattr(self._problem, name)

    def model(self):
        model = self._problem.model()
        score = model.score

        def keep(parameters: Arena, batch):
            self._kept[self._rank] = parameters.flat.copy()
            return score(parameters, batch)

        model.score = keep
        return model


@pytest.mark.parametrize("rule", [FixedRate(rate=0.1), Adagrad(rate=0.05), Momentum(rate=0.02)])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_replicas_together_do_what_one_process_does_with_their_minibatches(rule, ranks):
    """Of two replicas the first has a last minibatch of a single example, when the other has none left."""
    settings = dict(batch=11, dtype=np.float64)
    schedule = Cosine(updates=100)
    joined = Joined(ranks, **settings)
    heard = Heard()
    stop, evaluate = Stop(epochs=2), Evaluate(every_examples=700)
    truth = serial.train(joined, rule, stop, evaluate, heard, schedule=schedule)
    outcomes, _, told, _ = train(Digits(**settings), rule, ranks, evaluate=evaluate, schedule=schedule)
    np.testing.assert_allclose(outcomes[0].parameters.flat, truth.parameters.flat, rtol=0, atol=1e-12)
    assert [e.examples for e in told.evaluations] == [e.examples for e in heard.evaluations]
    assert [e.accuracy for e in told.evaluations] == [e.accuracy for e in heard.evaluations]
    for ours, theirs in zip(told.evaluations, heard.evaluations, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-10)
        assert (ours.train_loss or 0) == pytest.approx(theirs.train_loss or 0, rel=1e-10)


def test_all_ranks_have_the_same_bits():
    _, kept, _, _ = train(Digits(), Adagrad(rate=0.05), 5, jitter=0.5, speeds={3: 0.3})
    assert len(kept) == 3  # as many as there are batches of held-out examples to score
    first = kept.pop(0)
    for parameters in kept.values():
        assert np.array_equal(parameters.view(np.uint32), first.view(np.uint32))


class Different(Digits):
    """Digits whose model begins differently on every rank."""

    made = 0

    def model(self):
        model = super().model()
        Different.made += 1
        seed = Different.made
        initialise = model.initialise
        model.initialise = lambda parameters, _: initialise(parameters, seed)
        return model


def test_all_begin_with_the_parameters_of_rank_0():
    _, kept, _, _ = train(Different(), FixedRate(rate=0.05), 3)
    np.testing.assert_array_equal(kept[0], kept[1])
    np.testing.assert_array_equal(kept[0], kept[2])


def test_it_stops_after_seconds_of_virtual_time():
    outcomes, _, heard, cluster = train(
        Digits(), FixedRate(rate=0.05), 4, Stop(seconds=0.5), Evaluate(every_examples=5000), flops=1e8
    )
    assert outcomes[0].evaluation.examples > 5000
    assert 0.5 <= cluster.now < 0.6
    assert len(heard.evaluations) == outcomes[0].evaluation.examples // 5000 + 2
    assert [outcome.failed for outcome in outcomes] == [False] * 4


def test_the_slowest_sets_the_pace():
    settings = dict(ranks=4, stop=Stop(seconds=0.5), flops=1e8)
    even, _, _, _ = train(Digits(), FixedRate(rate=0.05), **settings)
    slowed, _, _, _ = train(Digits(), FixedRate(rate=0.05), speeds={2: 0.2}, **settings)
    assert slowed[0].evaluation.examples / even[0].evaluation.examples == pytest.approx(0.2, abs=0.03)
    evaluation = slowed[0].evaluation
    assert evaluation.seconds_pushing > 3 * 0.3  # three ranks wait for it
    speeds = evaluation.replica_examples_per_s
    assert len(speeds) == 4 and sum(speeds) == pytest.approx(evaluation.examples_per_s, rel=1e-4)


def test_accounts():
    problem = Digits(batch=50)
    _, _, heard, _ = train(problem, FixedRate(rate=0.05), 3)
    last = heard.evaluations[-1]
    # 499 examples in each part: 10 steps in an epoch, and one sum that tells that it is over.
    assert (last.step, last.examples) == (2 * 10 * 3, 2 * 1497)
    vectors = 1 + 2 * 11  # the first one: the beginning
    one_way = vectors * 2 * 4 * problem.model().layout.size
    assert last.bytes_pushed == pytest.approx(one_way, rel=0.01)
    assert last.bytes_fetched == pytest.approx(one_way, rel=0.01)
    assert heard.reports[-1].step == last.step - 3 or heard.reports[-1].step == last.step


class Poisoned(Digits):
    """Digits whose model turns bad after some steps, on one rank."""

    def __init__(self, endpoint, after: int, how: str):
        super().__init__()
        self._here, self._after, self._how = endpoint.rank == 2, after, how

    def model(self):
        model, steps = super().model(), 0
        gradient_of = model.gradient

        def gradient(parameters, batch, gradient):
            nonlocal steps
            steps += 1
            loss = gradient_of(parameters, batch, gradient)
            if steps > self._after and self._here:
                if self._how == "loss":
                    return float("nan")
                gradient.flat[-1] = np.inf
            return loss

        model.gradient = gradient
        return model


@pytest.mark.parametrize(("how", "words"), [("loss", "the loss is nan"), ("gradient", "NaN or infinity")])
def test_a_number_that_is_not_finite_ends_all_ranks_and_is_never_applied(how, words):
    heard = Heard()

    def program(endpoint):
        problem = Poisoned(endpoint, 7, how)
        listener = heard if endpoint.rank == 0 else None
        return synchronous.train(
            endpoint, problem, FixedRate(rate=0.1), Stop(epochs=1), Evaluate(every_examples=200), listener, 20.0
        )

    outcomes = Cluster(4).run(program)
    assert [outcome.failed for outcome in outcomes] == [True] * 4
    assert len({str(outcome.fault) for outcome in outcomes}) == 1
    assert words in str(outcomes[0].fault) and "step 8 of replica 2" in str(outcomes[0].fault)
    assert outcomes[0].evaluation == heard.evaluations[-1]
    assert np.isfinite(outcomes[0].parameters.flat).all()


def test_parameters_that_diverge_are_not_kept():
    outcomes, _, _, _ = train(Digits(), FixedRate(rate=1e30), 3, evaluate=Evaluate(every_examples=64))
    assert [outcome.failed for outcome in outcomes] == [True] * 3
    assert np.isfinite(outcomes[0].parameters.flat).all()


def test_a_dead_rank_is_named_and_nobody_hangs():
    def program(endpoint):
        synchronous.train(endpoint, Digits(), FixedRate(rate=0.1), Stop(epochs=9), Evaluate(), Heard(), timeout=20.0)

    cluster = Cluster(4, flops=1e7)
    cluster.kill(1, at=0.5)
    with pytest.raises(DeadlineExpired, match=r"rank \d waited 20 s for rank 1 to"):
        cluster.run(program)


class Steep(Model):
    """Finite gradients, of which a hundred are not."""

    tensors = {"w": (3,)}

    def gradient(self, parameters, batch, gradient):
        gradient["w"] = np.full(3, 3e36)
        return 1.0

    def score(self, parameters, batch):
        return float(len(batch[0])), None


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("rule", [FixedRate(rate=1e-37), Adagrad(rate=0.1)])
def test_a_finite_gradient_stays_finite(rule, ranks):
    """Steps of 128 examples for each, the last of fewer; then large ones again."""
    x = np.zeros((605, 1), np.float32)
    problem = UserProblem(Steep(), (x,), batch=128, held_out=5)
    outcomes, *_ = train(problem, rule, ranks)
    steps = 2 * -(-600 // (128 * ranks))
    change = -3e36 * 1e-37 * steps if isinstance(rule, FixedRate) else 0.0  # where squares overflow nothing moves
    np.testing.assert_allclose(outcomes[0].parameters.flat, change, rtol=1e-5)
