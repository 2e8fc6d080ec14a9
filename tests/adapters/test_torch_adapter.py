"""A torch.nn.Module as a model, against PyTorch itself. Without PyTorch only what is said then is tested."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from adapters.torch_cases import a_batch, convolutional, initialised, needs_torch, nn, right, torch
from mpi import launcher
from mpi.refusals import run_command

from distbelief import Adagrad, FixedRate, Stop, UserError, train
from distbelief.adapters.data import UserProblem
from distbelief.adapters.torch_module import TorchModel
from distbelief.adapters.trial import try_out
from distbelief.nn import Arena

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
EXAMPLE = Path(__file__).parents[2] / "examples" / "torch_module.py"


class Silent:
    def progress(self, progress): ...

    def evaluated(self, evaluation): ...


@pytest.fixture
def batch():
    return a_batch()


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
def test_what_does_not_travel_is_made_under_the_seed_too():
    def frozen() -> nn.Module:
        module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        module[0].requires_grad_(False)
        module.register_buffer("anchor", module[1].weight.detach().clone())
        return module

    data = (np.ones((40, 3), np.float32), np.zeros(40, np.int64))
    for seed in (0, 7):
        model = TorchModel(frozen, nn.functional.cross_entropy)
        outcome = train(model, data, rule=FixedRate(rate=1e-30), stop=Stop(epochs=1), seed=seed, listener=Silent())
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected = frozen()
        found = model.with_parameters(outcome.parameters)
        for name, values in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], values, rtol=0, atol=0, msg=name)


@needs_torch
def test_a_loss_for_each_example_is_refused(batch):
    model = TorchModel(convolutional, nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(UserError, match=r"^loss: a tensor of shape \(\d+,\), expected one number"):
        try_out(UserProblem(model, batch, held_out=4), 0, 1)


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
        (
            lambda: nn.Sequential(nn.Linear(36, 4), nn.BatchNorm1d(4)),
            r"module: 1 \(BatchNorm1d\) collects running statistics",
        ),
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
