"""Training from a script, in one process: against truths not ours, what it leaves, and what bad arguments get."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.numpy
import sklearn.linear_model
from algorithms.digits import Heard, train_in_simulator

import distbelief
from distbelief import Adagrad, Downpour, Evaluate, FixedRate, Model, Server, Stop, UserError, api, train
from distbelief.adapters.data import UserProblem
from distbelief.data import held_out
from distbelief.data.shuffle import random_order
from distbelief.nn import Arena

EXAMPLES = Path(__file__).parents[1] / "examples"
DOCS = Path(__file__).parents[1] / "docs" / "models.md"
INPUTS, CLASSES, HELD_OUT, SEED = 5, 3, 40, 7


def example(name: str) -> ModuleType:
    """One of the examples as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Regression(example("logistic_regression").LogisticRegression):
    dtype = np.float64

    def __init__(self):
        super().__init__(INPUTS, CLASSES)


class Mean(Model):
    """One number, the nearest to all examples: no right and wrong."""

    tensors = {"mean": ()}

    def gradient(self, parameters, batch, gradient):
        error_n = parameters["mean"] - batch
        gradient["mean"] = error_n.mean()
        return 0.5 * (error_n**2).mean()


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Points [n, INPUTS] and classes [n] that overlap, so that there is a best regression."""
    random = np.random.default_rng(3)
    y_n = random.integers(0, CLASSES, 340)
    return random.normal(size=(CLASSES, INPUTS))[y_n] + random.normal(0, 1.5, (340, INPUTS)), y_n


def probabilities(parameters, x_ni: np.ndarray) -> np.ndarray:
    e_nc = np.exp(x_ni @ parameters["w"].T + parameters["b"])
    return e_nc / e_nc.sum(axis=1, keepdims=True)


# Truths


def test_logistic_regression_is_that_of_scikit_learn(data):
    x_ni, y_n = data
    settings = {"rule": FixedRate(rate=1.0), "stop": Stop(epochs=4000), "batch": len(y_n), "held_out": data}
    ours = train(Regression(), data, **settings, listener=Heard()).parameters
    theirs = sklearn.linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x_ni, y_n)
    np.testing.assert_allclose(probabilities(ours, x_ni), theirs.predict_proba(x_ni), atol=1e-4)


@pytest.mark.parametrize("rule", [FixedRate(rate=0.1), Adagrad(rate=0.05)])
def test_training_is_that_of_a_plain_loop_over_the_same_batches(data, rule):
    ours = train(
        Regression(), data, rule=rule, stop=Stop(epochs=3), batch=16, held_out=HELD_OUT, seed=SEED, listener=Heard()
    ).parameters
    training, _ = held_out(len(data[1]), HELD_OUT, SEED)
    p = {"w": np.zeros((CLASSES, INPUTS)), "b": np.zeros(CLASSES)}
    squares = {name: np.zeros_like(value) for name, value in p.items()}
    for epoch in range(3):
        order = training[random_order(len(training), SEED, 0, epoch)]
        for start in range(0, len(order), 16):
            x_ni, y_n = (array[order[start : start + 16]] for array in data)
            error_nc = probabilities(p, x_ni) - np.eye(CLASSES)[y_n]
            for name, g in (("w", error_nc.T @ x_ni / len(y_n)), ("b", error_nc.mean(0))):
                squares[name] += g**2
                p[name] -= rule.rate * g / (np.sqrt(squares[name]) if isinstance(rule, Adagrad) else 1)
    for name in p:
        np.testing.assert_allclose(ours[name], p[name], rtol=0, atol=1e-12)


def test_matrix_factorisation_has_the_gradient_of_its_loss():
    module = example("matrix_factorisation")
    model = module.MatrixFactorisation()
    model.dtype = np.float64
    problem = UserProblem(model, module.ratings())
    adapted = problem.model()
    parameters, gradient, probe = (Arena(adapted.layout, np.float64) for _ in range(3))
    adapted.initialise(parameters, 0)
    batch = problem.batches(0, 1).first(500)  # of 200 users and 150 items: some come often
    adapted.gradient(parameters, batch, gradient)
    direction = np.random.default_rng(0).normal(size=gradient.flat.size)
    losses = []
    for step in (1e-5, -1e-5):
        probe.flat[:] = parameters.flat + step * direction
        losses.append(adapted.gradient(probe, batch, Arena(adapted.layout, np.float64)))
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(gradient.flat @ direction, rel=1e-7)


def test_one_replica_in_the_simulator_trains_as_one_process_does(data):
    problem = UserProblem(Regression(), data, batch=16, held_out=HELD_OUT, seed=SEED)
    rule, stop = FixedRate(rate=0.1), Stop(epochs=2)
    serial = train(Regression(), data, rule=rule, stop=stop, batch=16, held_out=HELD_OUT, seed=SEED, listener=Heard())
    outcomes, heard, _ = train_in_simulator(
        problem, rule, ranks=3, shards=2, settings=Downpour(n_fetch=1_000_000), stop=stop
    )
    np.testing.assert_allclose(outcomes[0].parameters.flat, serial.parameters.flat, rtol=0, atol=1e-12)
    assert heard.evaluations[-1].accuracy == serial.evaluation.accuracy


def test_many_replicas_in_the_simulator_learn(data):
    problem = UserProblem(Regression, data, batch=16, held_out=HELD_OUT)
    outcomes, heard, _ = train_in_simulator(problem, Adagrad(rate=0.1), ranks=6, shards=2, stop=Stop(epochs=5))
    assert heard.evaluations[-1].loss < 0.85 * np.log(CLASSES)
    assert all(outcome.parameters is None for outcome in outcomes[1:])


# The examples


def run_example(name: str, *words: str) -> str:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_of_logistic_regression(tmp_path):
    said = run_example("logistic_regression", "--folder", str(tmp_path / "run"))
    assert float(re.search(r"^accuracy ([\d.]+)$", said, re.MULTILINE)[1]) > 0.9
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"settings.toml", "result.json"}


def test_example_of_matrix_factorisation():
    said = run_example("matrix_factorisation")
    error, variance = re.search(r"error ([\d.]+), .* variance of ([\d.]+)$", said).groups()
    assert float(error) < 0.2 * float(variance)


# What a run tells and leaves


def test_a_model_without_right_and_wrong_has_no_accuracy(tmp_path, capsys):
    numbers = np.arange(100.0)
    outcome = train(Mean(), numbers, rule=FixedRate(rate=0.5), stop=Stop(epochs=20), folder=tmp_path / "run")
    assert outcome.parameters["mean"] == pytest.approx(50, abs=10)
    assert outcome.evaluation.accuracy is None
    said = capsys.readouterr().out
    assert "held out at" in said and "accuracy" not in said
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["accuracy"] for record in records] == [None, None]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["held_out_accuracy"] is None


def test_a_listener_hears_what_would_be_printed(data, tmp_path, capsys):
    heard = Heard()
    outcome = train(
        Regression,
        data,
        rule=FixedRate(rate=0.1),
        stop=Stop(epochs=2),
        evaluate=Evaluate(every_examples=100),
        held_out=40,
        folder=tmp_path / "run",
        listener=heard,
    )
    assert [e.examples for e in heard.evaluations] == [0, 128, 224, 300, 428, 524, 600]
    assert outcome.evaluation == heard.evaluations[-1] and heard.reports
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 7
    assert capsys.readouterr().out == ""


def test_a_folder_has_the_settings_and_is_not_replaced_unawares(tmp_path):
    def again(**changes):
        settings = {"rule": FixedRate(rate=0.5), "stop": Stop(epochs=1), "batch": np.int64(7), "listener": Heard()}
        return train(Mean(), np.arange(100.0), **settings | {"folder": tmp_path} | changes)

    outcome = again()
    kept = tomllib.loads((tmp_path / "settings.toml").read_text())
    assert kept["rule"] == {"kind": "fixed", "rate": 0.5} and kept["batch"] == 7 and kept["server"]["shards"] == 1
    tensors = safetensors.numpy.load_file(tmp_path / "parameters.safetensors")
    assert tensors["mean"] == outcome.parameters["mean"]
    with pytest.raises(UserError, match="already holds a run .*settings.toml"):
        again()
    again(overwrite=True, batch=8)
    assert tomllib.loads((tmp_path / "settings.toml").read_text())["batch"] == 8


def test_a_gradient_that_stops_being_finite_ends_training(tmp_path):
    class Diverging(Mean):
        def gradient(self, parameters, batch, gradient):
            loss = super().gradient(parameters, batch, gradient)
            gradient["mean"] = -1e30 * gradient["mean"]
            return loss

    settings = {"rule": FixedRate(rate=1.0), "stop": Stop(epochs=100), "folder": tmp_path, "listener": Heard()}
    said = r"at step \d of replica 0; kept the parameters .* at 0 examples in "
    with np.errstate(over="ignore"), pytest.raises(UserError, match=said):
        train(Diverging(), np.arange(1.0, 100.0, dtype=np.float32), **settings)
    assert json.loads((tmp_path / "result.json").read_text())["complete"] is False


def test_an_exception_during_training_is_the_users_own(data):
    class Failing(Regression):
        calls = 0

        def gradient(self, parameters, batch, gradient):
            self.calls += 1
            return super().gradient(parameters, batch, gradient) if self.calls < 5 else 1 // 0

    with pytest.raises(ZeroDivisionError):
        train(Failing(), data, rule=FixedRate(rate=0.1), stop=Stop(epochs=1), listener=Heard())


# Bad arguments


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": "adagrad"}, r"rule: 'adagrad', expected FixedRate\(\.\.\.\) or Adagrad\(\.\.\.\)"),
        ({"rule": Adagrad(rate=0)}, r"rule\.rate: expected float > 0.*, found 0"),
        ({"rule": FixedRate(rate=float("inf"))}, r"rule\.rate: expected a finite number, found inf"),
        ({"rule": FixedRate(rate=np.zeros(2))}, r"rule\.rate: expected float"),
        ({"stop": Stop()}, r"stop: expected Stop\(epochs=\.\.\.\), Stop\(seconds=\.\.\.\) or both"),
        ({"stop": 5}, r"stop: 5, expected Stop\(\.\.\.\)"),
        ({"stop": Stop(epochs=0)}, r"stop\.epochs: expected int >= 1, found 0"),
        ({"downpour": Downpour(n_push=0)}, r"downpour\.n_push: expected int >= 1, found 0"),
        ({"server": Server(shards=2)}, r"server\.shards: 2, expected at most 1 with 1 ranks"),
        ({"batch": 0}, r"batch: expected int >= 1, found 0"),
        ({"batch": "many"}, r"batch: expected int, .*found 'many'"),
        ({"seed": -1}, r"seed: expected int >= 0, found -1"),
        ({"held_out": 0}, r"held_out: 0, expected 1 to 339, as there are 340 examples"),
        ({"held_out": 340}, r"held_out: 340, expected 1 to 339"),
        ({"held_out": 0.1}, r"held_out: a float, expected a tuple of arrays"),
    ],
    ids=str,
)
def test_bad_arguments(data, tmp_path, changes, said):
    arguments = {"rule": Adagrad(rate=0.1), "stop": Stop(epochs=1), "folder": tmp_path / "run"} | changes
    with pytest.raises(UserError, match=f"^{said}") as caught:
        train(Regression(), data, **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# The package


def test_importing_the_package_loads_little():
    program = "import sys, distbelief; print(sorted({'numpy', 'msgspec', 'distbelief.api'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_the_package_has_what_the_api_has():
    assert sorted(distbelief.__all__) == sorted(api.__all__)
    assert all(getattr(distbelief, name) is getattr(api, name) for name in distbelief.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        distbelief.trian  # noqa: B018


# The documentation


@pytest.mark.skipif(not DOCS.exists(), reason="no documentation here")
def test_the_ten_lines_of_the_documentation(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    programs = [block for block in blocks if "torch" not in block]
    assert len(programs) == 1 and len(blocks) == 2
    (tmp_path / "regression.py").write_text(programs[0])
    done = subprocess.run([sys.executable, "regression.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d*", done.stdout.splitlines()[-1])]
    assert numbers == pytest.approx([1, -2, 3, 4], abs=0.05)


def test_a_listener_says_what_it_needs():
    class Half:
        def evaluated(self, evaluation): ...

    with pytest.raises(UserError, match=r"^listener: a Half without a method progress, expected progress"):
        train(Mean(), np.ones(99), rule=FixedRate(rate=0.1), stop=Stop(epochs=1), listener=Half())


def test_one_example_is_too_little_to_hold_one_out():
    with pytest.raises(UserError, match="^data: 1 example, expected at least 2"):
        train(Mean(), np.ones(1), rule=FixedRate(rate=0.1), stop=Stop(epochs=1))


def test_a_misfit_after_the_trial_is_one_line():
    class Widening(Mean):
        calls = 0

        def gradient(self, parameters, batch, gradient):
            self.calls += 1
            loss = super().gradient(parameters, batch, gradient)
            if self.calls == 6:
                gradient["mean"] = np.ones(3)
            return loss

    said = r"^Widening\.gradient: ValueError: a value of shape \(3,\) for tensor mean of shape .* \(test_api\.py:\d+\)$"
    with pytest.raises(UserError, match=said):
        train(Widening(), np.ones(99), rule=FixedRate(rate=0.1), stop=Stop(epochs=9), listener=Heard())
