"""Gradients of a torch.nn.Module, told one by one as PyTorch makes them."""

from collections.abc import Callable

import numpy as np
import pytest
from adapters.torch_cases import a_batch, convolutional, initialised, needs_torch, nn, right, torch
from algorithms.digits import train_in_simulator, train_serially

from distbelief import FixedRate, Stop, UserError
from distbelief.adapters.data import UserProblem
from distbelief.adapters.torch_module import TorchModel
from distbelief.algorithms.settings import Downpour
from distbelief.nn import Arena
from distbelief.server import Client, pieces

try:
    from torch.utils.checkpoint import checkpoint
except ImportError:
    checkpoint = None


@pytest.fixture
def batch():
    return a_batch()


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
