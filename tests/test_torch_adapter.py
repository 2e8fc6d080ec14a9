"""A torch.nn.Module as a model, against PyTorch itself. Without PyTorch only what is said then is tested."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from algorithms.digits import train_in_simulator, train_serially
from mpi import launcher
from mpi.refusals import run_command

from distbelief import Adagrad, FixedRate, Stop, UserError, train
from distbelief.adapters.data import UserProblem
from distbelief.adapters.torch_module import TorchModel
from distbelief.adapters.trial import try_out
from distbelief.algorithms.settings import Downpour
from distbelief.nn import Arena, Layout
from distbelief.server import Client, pieces

try:
    import torch
    from torch import nn
    from torch.utils.checkpoint import checkpoint
except ImportError:
    torch = nn = None

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
EXAMPLE = Path(__file__).parents[1] / "examples" / "torch_module.py"
needs_torch = pytest.mark.skipif(torch is None, reason="no PyTorch")


class Silent:
    def progress(self, progress): ...

    def evaluated(self, evaluation): ...


def convolutional() -> "nn.Module":
    """Of several kinds of layers, one parameter that no loss depends on, and one that is frozen."""
    module = nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)),
        nn.Conv2d(1, 3, 3),
        nn.GroupNorm(1, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 8, bias=False),
        nn.Tanh(),
        nn.Linear(8, 4),
    )
    module.unused = nn.Parameter(torch.ones(2, 3))
    module[7].bias.requires_grad_(False)
    return module


def right(outputs, target):
    return (outputs.argmax(1) == target).sum()


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(10, 36)), random.integers(0, 4, 10)


def initialised(model: TorchModel, seed: int = 1) -> Arena:
    parameters = Arena(Layout(model.tensors), model.dtype)
    model.initialise(parameters, seed)
    return parameters


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_those_of_autograd(batch, dtype):
    model = TorchModel(lambda: convolutional().to(getattr(torch, dtype)), nn.functional.cross_entropy, right=right)
    assert model.dtype == dtype and "unused" in model.tensors and "7.bias" not in model.tensors
    parameters = initialised(model)
    gradient = Arena(parameters.layout, model.dtype, np.full(parameters.layout.size, np.nan, model.dtype))
    loss = model.gradient(parameters, batch, gradient)

    module = model.with_parameters(parameters)
    module.train()
    outputs = module(torch.tensor(batch[0], dtype=getattr(torch, dtype)))
    expected = nn.functional.cross_entropy(outputs, torch.tensor(batch[1]))
    expected.backward()
    assert loss == expected.item()
    for name, parameter in module.named_parameters():
        if name == "unused":
            assert not gradient[name].any()
        elif parameter.requires_grad:
            np.testing.assert_allclose(gradient[name], parameter.grad.numpy(), rtol=1e-5, atol=1e-7)
    sum_of_losses, number_right = model.score(parameters, batch)
    assert sum_of_losses == pytest.approx(10 * expected.item(), rel=1e-6)
    assert number_right == (outputs.argmax(1).numpy() == batch[1]).sum()


@needs_torch
def test_embeddings_with_sparse_gradients():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 3, sparse=True)
            self.top = nn.Linear(3, 1)

        def forward(self, words):
            return self.top(self.table(words))[:, 0]

    model = TorchModel(Embedded, nn.functional.mse_loss)
    parameters = initialised(model)
    gradient = Arena(parameters.layout)
    words, y = np.array([3, 3, 5]), np.array([1.0, 2.0, 3.0])
    model.gradient(parameters, (words, y), gradient)
    module = model.with_parameters(parameters)
    nn.functional.mse_loss(module(torch.tensor(words)), torch.tensor(y, dtype=torch.float32)).backward()
    np.testing.assert_allclose(gradient["table.weight"], module.table.weight.grad.to_dense().numpy(), rtol=1e-6)


@needs_torch
def test_serial_training_is_that_of_torch_optim(batch):
    data = tuple(np.tile(array, (5, 1)) if array.ndim == 2 else np.tile(array, 5) for array in batch)
    model = TorchModel(lambda: convolutional().double(), nn.functional.cross_entropy)
    settings = {"stop": Stop(epochs=4), "batch": 50, "held_out": data, "listener": Silent()}
    outcome = train(model, data, rule=FixedRate(rate=0.1), **settings)
    module = model.with_parameters(initialised(model, seed=0))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(4):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(data[0])), torch.tensor(data[1])).backward()
        optimiser.step()
    for name in outcome.parameters:
        theirs = module.get_parameter(name).detach().numpy()
        np.testing.assert_allclose(outcome.parameters[name], theirs, rtol=0, atol=1e-12)


# Gradients one by one


class Told:
    """Remembers what a model tells of one gradient, and each gradient as it was when it was told."""

    def __init__(self, gradient: Arena):
        self._gradient = gradient
        self.needed = []
        self.produced = {}

    def hooks(self) -> tuple:
        return lambda *names: self.needed.extend(names), self._take

    def _take(self, *names):
        for name in names:
            assert name not in self.produced, "told once"
            self.produced[name] = self._gradient[name].copy()


def tell(model: TorchModel, parameters: Arena, batch, passes: int = 2) -> tuple[Told, Arena]:
    """What is told of the last of some gradients, and that gradient."""
    gradient = Arena(parameters.layout, model.dtype)
    for _ in range(passes):
        told = Told(gradient)
        model.gradient(parameters, batch, gradient, *told.hooks())
    for name, values in told.produced.items():
        np.testing.assert_array_equal(values, gradient[name])  # final when it was told
    return told, gradient


def expected_gradient(model: TorchModel, parameters: Arena, batch) -> dict[str, np.ndarray]:
    module = model.with_parameters(parameters).train()
    nn.functional.cross_entropy(module(torch.tensor(batch[0], dtype=torch.float32)), torch.tensor(batch[1])).backward()
    return {name: parameter.grad.numpy() for name, parameter in module.named_parameters() if parameter.grad is not None}


@needs_torch
def test_each_gradient_is_told_once_it_is_final_the_last_layers_first(batch):
    model = TorchModel(convolutional, nn.functional.cross_entropy)
    told, gradient = tell(model, initialised(model), batch)
    assert told.needed == list(model.tensors)
    assert [name.split(".")[0] for name in told.produced] == ["7", "5", "2", "2", "1", "1"]
    assert not gradient["unused"].any()  # nobody tells of it: the step ends with what is left


@needs_torch
def test_the_first_backward_pass_tells_of_nothing(batch):
    model = TorchModel(convolutional, nn.functional.cross_entropy)
    told, gradient = tell(model, initialised(model), batch, passes=1)
    assert told.needed and not told.produced and gradient["1.weight"].any()


def used_twice(checkpoints: Callable[[], bool] = lambda: False, reentrant: bool = True) -> "nn.Module":
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.both, self.last = nn.Linear(36, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            x = self.first(x)
            for _ in range(2):
                if checkpoints():
                    x = checkpoint(lambda x: torch.tanh(self.both(x)), x, use_reentrant=reentrant)
                else:
                    x = torch.tanh(self.both(x))
            return self.last(x)

    return Twice()


@needs_torch
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_a_parameter_that_is_used_twice_is_told_when_both_parts_are_in_its_gradient(batch, reentrant):
    """Or, where there is a backward pass for each of them (reentrant checkpoints), not at all."""
    model = TorchModel(lambda: used_twice(lambda: reentrant is not None, reentrant), nn.functional.cross_entropy)
    parameters = initialised(model)
    told, gradient = tell(model, parameters, batch)
    layers = dict.fromkeys(name.split(".")[0] for name in told.produced)
    assert list(layers) == (["last", "first"] if reentrant else ["last", "both", "first"])
    for name, values in expected_gradient(model, parameters, batch).items():
        np.testing.assert_allclose(gradient[name], values, rtol=1e-5, atol=1e-7)


@needs_torch
def test_a_gradient_that_goes_on_after_it_was_told_is_an_error(batch):
    steps = iter([False, False, True, True])
    model = TorchModel(lambda: used_twice(lambda: next(steps)), nn.functional.cross_entropy)
    with pytest.raises(UserError, match=r"the gradient of both\.\w+ was added to after .* TorchModel\(.*whole=True\)"):
        tell(model, initialised(model), batch)


@needs_torch
def test_a_gradient_that_a_modules_own_hook_replaces_is_in_its_place_when_it_is_told_and_left_alone_then(batch):
    def make():
        module = nn.Linear(36, 4)
        module.weight.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", p.grad.clamp(-0.01, 0.01)))
        return module

    model = TorchModel(make, nn.functional.cross_entropy)
    parameters = initialised(model)
    _, gradient = tell(model, parameters, batch)
    assert np.abs(gradient["weight"]).max() == np.float32(0.01)

    def give_back(*names):  # its memory, once it has been sent
        for name in names:
            gradient[name] = np.full(gradient[name].shape, 7.0)

    model.gradient(parameters, batch, gradient, lambda *names: None, give_back)
    assert (gradient.flat == 7.0).all()


@needs_torch
@pytest.mark.parametrize("why", ["whole", "not finite"])
def test_nothing_is_told(batch, why):
    model = TorchModel(convolutional, nn.functional.cross_entropy, whole=why == "whole")
    parameters = initialised(model)
    tell(model, parameters, batch)
    x = np.full_like(batch[0], np.nan) if why == "not finite" else batch[0]
    told, _ = tell(model, parameters, (x, batch[1]), passes=1)
    assert told.needed and not told.produced


@needs_torch
def test_who_is_told_may_evaluate_other_parameters_meanwhile(batch):
    """As a coordinator beside a replica does; neither disturbs the other, nor does it with dropout."""

    def make():
        module = convolutional()
        module.insert(6, nn.Dropout(0.5))
        return module

    model = TorchModel(make, nn.functional.cross_entropy, right=right)
    parameters, others = initialised(model, 1), initialised(model, 2)
    others["2.weight"] = np.array(
        [3.0, -1.0, 2.0]
    )  # what the backward pass still needs, of a layer that begins with ones
    gradient, expected = Arena(parameters.layout), Arena(parameters.layout)
    for into in (gradient, expected):  # the first pass tells of nothing
        torch.manual_seed(0)
        model.gradient(parameters, batch, into)
    score, scores, modules = model.score(others, batch), [], []

    def evaluate(*names):
        scores.append(model.score(others, batch))
        modules.append(model.with_parameters(others))

    for _ in range(2):
        torch.manual_seed(0)
        model.gradient(parameters, batch, gradient, lambda *names: None, evaluate)
        np.testing.assert_array_equal(gradient.flat, expected.flat)
    assert len(scores) == 12 and set(scores) == {score}
    np.testing.assert_array_equal(modules[-1][1].weight.detach().numpy(), others["1.weight"])
    assert model.score(others, batch) == score


@needs_torch
@pytest.mark.parametrize("n_push", [1, 2])
@pytest.mark.parametrize("shards", [1, 3])
def test_one_replica_that_tells_of_them_computes_what_serial_sgd_does(batch, monkeypatch, n_push, shards):
    monkeypatch.setattr(pieces, "LEAST", 1)  # each tensor by itself
    data = tuple(np.concatenate([array] * 8) for array in batch)
    problem = UserProblem(
        lambda: TorchModel(lambda: convolutional().double(), nn.functional.cross_entropy), data, batch=10, held_out=4
    )
    truth, _ = train_serially(problem, FixedRate(rate=0.1), Stop(epochs=3))
    settings = Downpour(n_push=n_push)
    outcomes, _, _ = train_in_simulator(
        problem, FixedRate(rate=0.1), ranks=shards + 1, shards=shards, settings=settings, stop=Stop(epochs=3)
    )
    np.testing.assert_allclose(outcomes[0].parameters.flat, truth.parameters.flat, rtol=0, atol=1e-12)


@needs_torch
def test_gradients_leave_while_others_are_made(batch, monkeypatch):
    """In a step's backward pass all but the first layer's have been sent when that is made."""
    monkeypatch.setattr(pieces, "LEAST", 1)
    sent, send = [], Client.send
    monkeypatch.setattr(Client, "send", lambda self, push, number: sent.append(number) or send(self, push, number))
    seen, take = [], TorchModel._take

    def look(self, name, parameter):
        seen.append((name, len(sent)))
        take(self, name, parameter)

    monkeypatch.setattr(TorchModel, "_take", look)
    problem = UserProblem(lambda: TorchModel(convolutional, nn.functional.cross_entropy), batch, batch=4, held_out=2)
    train_in_simulator(problem, FixedRate(rate=0.1), ranks=2, stop=Stop(epochs=1))
    assert [count for name, count in seen if name == "1.bias"][0] == 0, "nobody knows of the first"
    last = {name: count for name, count in seen}
    assert last["7.weight"] < last["5.weight"] < last["2.weight"] < last["1.weight"]


@needs_torch
def test_the_seed_names_the_beginning_and_nothing_else_changes():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = (TorchModel(convolutional, nn.functional.cross_entropy) for _ in range(2))
    first, again, another = initialised(one, 1), initialised(other, 1), initialised(one, 2)
    np.testing.assert_array_equal(first.flat, again.flat)
    assert (first.flat != another.flat).any()
    frozen = [model.with_parameters(first)[7].bias.numpy() for model in (one, other)]
    np.testing.assert_array_equal(*frozen)
    assert torch.equal(torch.rand(3), expected)


@needs_torch
def test_a_module_of_ones_own_is_the_beginning_and_stays_as_it_is(batch):
    module = convolutional()
    before = [parameter.detach().numpy().copy() for parameter in module.parameters()]
    model = TorchModel(module, nn.functional.cross_entropy)
    data = tuple(np.concatenate([array, array]) for array in batch)
    outcome = train(model, data, rule=Adagrad(rate=0.1), stop=Stop(epochs=2), held_out=4, listener=Silent())
    for parameter, values in zip(module.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.detach().numpy(), values)
    np.testing.assert_array_equal(initialised(model)["1.weight"], before[1])
    assert (outcome.parameters["1.weight"] != before[1]).any()
    trained = model.with_parameters(outcome.parameters)
    np.testing.assert_array_equal(trained[1].weight.detach().numpy(), outcome.parameters["1.weight"])
    trained[1].weight.data.zero_()
    assert outcome.parameters["1.weight"].any()  # a copy


@needs_torch
def test_dropout_is_for_training_only(batch):
    model = TorchModel(lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(36, 4)), nn.functional.cross_entropy)
    parameters = initialised(model)
    gradient = Arena(parameters.layout)
    assert len({model.gradient(parameters, batch, gradient) for _ in range(3)}) > 1
    assert len({model.score(parameters, batch) for _ in range(3)}) == 1


@needs_torch
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nn.Sequential(nn.Linear(36, 4), nn.BatchNorm1d(4)), "module: 1 collects running statistics"),
        (lambda: nn.Linear(36, 4).bfloat16(), "module: parameter weight is bfloat16 on cpu, expected float32 or"),
        (lambda: nn.Linear(36, 4, device="meta"), "module: parameter weight is float32 on meta"),
        (lambda: nn.Sequential(nn.Linear(36, 4), nn.Linear(4, 4).double()), "parameters of both float32 and float64"),
        (nn and nn.Flatten, "module: no parameters that require a gradient"),
        (lambda: 5, "module: a int, expected a torch.nn.Module"),
    ],
    ids=["BatchNorm", "bfloat16", "another device", "two dtypes", "no parameters", "no module"],
)
def test_modules_that_cannot_be_trained(make, said):
    with pytest.raises(UserError, match=f"{said}"):
        TorchModel(make, nn.functional.cross_entropy)


@needs_torch
def test_a_module_that_does_not_fit_the_data_is_one_line(batch):
    model = TorchModel(lambda: nn.Linear(35, 4), nn.functional.cross_entropy)
    with pytest.raises(UserError, match=r"^TorchModel\.gradient: RuntimeError: mat1 and mat2 shapes") as caught:
        try_out(UserProblem(model, batch), 0, 1)
    assert "\n" not in str(caught.value)


@needs_torch
@pytest.mark.parametrize(("variable", "argument", "threads"), [(None, "", 1), ("2", "", 2), (None, ", threads=3", 3)])
def test_threads(monkeypatch, variable, argument, threads):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # PyTorch built with MKL heeds both
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    program = f"""
import torch
from distbelief.adapters.torch_module import TorchModel
TorchModel(torch.nn.Linear(2, 2), torch.nn.functional.mse_loss{argument})
print(torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(threads), done.stderr


@needs_torch
@pytest.mark.parametrize(
    "ranks",
    [
        None,
        pytest.param(
            3, marks=[pytest.mark.mpi, pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec")]
        ),
    ],
)
def test_example(ranks, tmp_path):
    said = run_command([sys.executable, str(EXAMPLE)], ranks, tmp_path).require_success().stdout
    assert ("Downpour on 3 ranks" if ranks else "serial training") in said
    (accuracy, classes), *more = re.findall(r"^accuracy ([\d.]+); .* of classes (.*)$", said, re.MULTILINE)
    assert float(accuracy) > 0.95 and classes == "0 and 1" and not more


@needs_torch
@pytest.mark.skipif(not DOCS.exists(), reason="no documentation here")
def test_the_lines_of_the_documentation():
    blocks = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    (program,) = [block for block in blocks if "torch" in block]
    program += "print('accurate', outcome.evaluation.accuracy > 0.8)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("accurate True\n"), done.stderr


@pytest.mark.skipif(torch is not None, reason="PyTorch is here")
def test_without_torch_the_extra_is_named():
    with pytest.raises(UserError, match=r"PyTorch cannot be imported .*distbelief\[torch\]"):
        TorchModel(lambda: None, lambda outputs, target: 0.0)
