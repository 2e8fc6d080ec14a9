"""What a model of a user's own is told before training, when it is not what it says that it is."""

import numpy as np
import pytest

from distbelief import Model, UserError
from distbelief.adapters.data import UserProblem
from distbelief.adapters.model import Adapted, Minibatch
from distbelief.adapters.trial import try_out
from distbelief.data import Batch
from distbelief.nn import Arena, Dense, Network

DATA = (np.ones((20, 3)), np.arange(20.0))


class Linear(Model):
    """y = w x + b, by least squares."""

    tensors = {"w": (3,), "b": 1}

    def gradient(self, parameters, batch, gradient):
        x_ni, y_n = batch
        error_n = x_ni @ parameters["w"] + parameters["b"] - y_n
        gradient["w"] = x_ni.T @ error_n / len(y_n)
        gradient["b"] = error_n.mean(keepdims=True)
        return 0.5 * (error_n**2).mean()


def try_model(model, data=DATA) -> None:
    try_out(UserProblem(model, data, held_out=5), 0, 1)


def variant(**members) -> type[Linear]:
    """Linear with other members; a function gets super's gradient as its last argument."""
    return type("Linear", (Linear,), members)


def after(change):
    """A gradient that ends with `change(parameters, gradient)`, and returns what that returns, if anything."""

    def gradient(self, parameters, batch, gradient):
        loss = Linear.gradient(self, parameters, batch, gradient)
        changed = change(parameters, gradient)
        return loss if changed is None else changed

    return variant(gradient=gradient)


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32])
def test_a_sound_model_passes(dtype):
    try_model(variant(dtype=dtype))
    try_model(variant(dtype=dtype)())
    try_model(variant(tensors=[("w", (3,)), ("b", [1])])())


class Attributes:
    """A model that inherits from nothing."""

    tensors = {"w": (3,)}

    def initialise(self, parameters, seed):
        parameters["w"] = np.full(3, seed)

    def gradient(self, parameters, batch, gradient):
        gradient["w"] = parameters["w"]
        return np.float32(0.5)


class Least:
    """A model that begins with zeros."""

    tensors = {"w": (3,)}
    gradient = Attributes.gradient


def test_whatever_has_the_attributes_is_a_model():
    try_model(Attributes())
    try_model(Least())
    adapted = Adapted(Least())
    parameters = Arena(adapted.layout, np.float32)
    parameters.flat[:] = np.nan
    adapted.initialise(parameters, 1)
    assert not parameters.flat.any()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "empty, expected names and shapes such as {'w': (10, 64), 'b': (10,)}"),
        ([], "empty"),
        (5, "5, expected names and shapes"),
        (["w", "b"], "['w', 'b'], expected names and shapes"),
        ([("w", 3), ("w", 4)], "w twice, expected every name once"),
        ({"": 3}, "'' as a name"),
        ({3: 3}, "3 as a name"),
        ({"w": 0}, "w has shape 0, expected whole numbers from 1 on"),
        ({"w": (3, -1)}, "w has shape (3, -1)"),
        ({"w": (3, 1.5)}, "w has shape (3, 1.5)"),
        ({"w": None}, "w has shape None"),
    ],
    ids=str,
)
def test_tensors_that_are_none(tensors, said):
    with pytest.raises(UserError) as caught:
        try_model(variant(tensors=tensors))
    assert str(caught.value).startswith("Linear.tensors: ") and said in str(caught.value)


def test_missing_tensors():
    class Bare(Model): ...

    with pytest.raises(UserError, match=r"^Bare\.tensors: missing, expected"):
        try_model(Bare)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, "complex64", "bfloat16", None.__class__])
def test_another_dtype(dtype):
    with pytest.raises(UserError, match=r"^Linear\.dtype: .*, expected float32 or float64$"):
        try_model(variant(dtype=dtype))


def _write_another(parameters, gradient):
    gradient["c"] = 1.0


def _write_another_shape(parameters, gradient):
    gradient["w"] = np.ones((1, 3))


def _write_complex(parameters, gradient):
    gradient["w"] = np.full(3, 1j)


def _write_nan(parameters, gradient):
    gradient["b"] = [np.nan]


def _step(parameters, gradient):
    parameters["w"] -= 0.1 * gradient["w"] + 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_write_another_shape, r": ValueError: a value of shape \(1, 3\) for tensor w of shape \(3,\) \(test_adapt"),
        (_write_complex, r": TypeError: Cannot cast .* \(test_adapters_model\.py:\d+\)$"),
        (_write_nan, ": NaN or infinity in tensor b at the initial parameters$"),
        (_step, " changed the parameters, expected it to write into the gradient alone$"),
        (lambda p, g: np.inf, ": the loss is inf at the initial parameters, expected a finite number$"),
        (lambda p, g: "0.5", " returned a str, expected the mean loss of the batch, one number$"),
        (lambda p, g: np.ones(2), r" returned a ndarray of shape \(2,\), expected the mean loss"),
        (lambda p, g: 1j, " returned a complex, expected the mean loss"),
    ],
)
def test_gradients_that_are_none(change, said):
    with pytest.raises(UserError, match=rf"^Linear\.gradient{said}") as caught:
        try_model(after(change))
    assert "\n" not in str(caught.value)


def test_the_declared_tensors_are_told():
    with pytest.raises(UserError, match=r"KeyError: 'c'; the tensors are: w, b \(test_adapters_model\.py:\d+\)$"):
        try_model(after(_write_another))


def test_no_loss_is_returned():
    with pytest.raises(UserError, match="returned a NoneType, expected the mean loss of the batch, one number"):
        try_model(variant(gradient=lambda self, parameters, batch, gradient: gradient.flat.fill(0)))


def test_no_gradient_is_written():
    with pytest.raises(UserError, match="NotImplementedError: a model has to have a gradient"):
        try_model(variant(gradient=Model.gradient))


@pytest.mark.parametrize("where", ["gradient", "score", "initialise"])
def test_an_exception_is_one_line_with_its_place(where):
    def fail(self, *arguments):
        raise RuntimeError("planted\nand more")

    with pytest.raises(UserError) as caught:
        try_model(variant(**{where: fail}))
    assert str(caught.value).startswith(f"Linear.{where}: RuntimeError: planted (test_adapters_model.py:")
    assert isinstance(caught.value.__cause__, RuntimeError)  # with the traceback


@pytest.mark.parametrize("beginning", ["as it is", "zeros"])
def test_a_gradient_that_is_added_up(beginning):
    def gradient(self, parameters, batch, gradient):
        if beginning == "zeros":
            gradient.flat[:] = 0
        gradient["w"] += 1
        gradient["b"] += 1
        return 1.0

    if beginning == "zeros":
        try_model(variant(gradient=gradient))
    else:
        with pytest.raises(UserError, match=r"tensor w is not overwritten whole; .* gradient\.flat\[:\] = 0"):
            try_model(variant(gradient=gradient))


def test_a_tensor_that_is_left_out():
    with pytest.raises(UserError, match="tensor forgotten is not overwritten whole"):
        try_model(variant(tensors={"w": 3, "b": 1, "forgotten": 2}))


def test_an_initialisation_that_is_not_finite():
    def initialise(self, parameters, seed):
        parameters["b"] = [np.nan]

    with pytest.raises(UserError, match=r"^Linear\.initialise: NaN or infinity in tensor b"):
        try_model(variant(initialise=initialise))


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ((1.0, 6), "6 of 5 examples are right, expected 0 to 5, or None"),
        ((np.nan, None), "the loss is nan on held-out examples"),
        (1.0, "1.0, expected two: the sum of the losses, and how many are right, or None"),
    ],
    ids=str,
)
def test_scores_that_are_none(score, said):
    with pytest.raises(UserError, match=rf"^Linear\.score: {said}"):
        try_model(variant(score=lambda self, parameters, batch: score))


@pytest.mark.parametrize("model", [None, 5, np.zeros(3)])
def test_no_model_at_all(model):
    with pytest.raises(UserError, match="^model: .*, expected one with a method gradient, or a function that makes"):
        UserProblem(model, DATA)


def test_a_function_that_cannot_make_a_model():
    with pytest.raises(UserError, match="^model: ZeroDivisionError"):
        try_model(lambda: 1 // 0)


# What is added


def test_without_a_score_the_gradients_loss_counts():
    model, batch = Adapted(Linear()), Minibatch(np.arange(4), (DATA[0][:4], DATA[1][:4]))
    parameters = Arena(model.layout)
    assert model.score(parameters, batch) == (0.5 * (0 + 1 + 4 + 9), None)


def test_flops_are_the_models_own_or_two_for_each_parameter():
    assert Adapted(Linear()).flops(10) == 80
    assert Adapted(variant(flops=lambda self, examples: 7.0 * examples)()).flops(10) == 70


def test_a_network_of_ours_is_a_model_too():
    class Columns:
        """Batches as an nn.Network takes them."""

        def __len__(self):
            return 20

        def __getitem__(self, rows):
            return Batch(np.ascontiguousarray(DATA[0][rows].T), rows % 4)

    try_model(Network([Dense("dense0", 3, 4)], batch=20, dtype=np.float64), Columns())


class Layered(Linear):
    """One that goes layer by layer: of two tensors, the second is needed last and produced first."""

    names = ("w", "b")

    def gradient(self, parameters, batch, gradient, needed=None, produced=None):
        for name in self.names if needed else ():
            needed(name)
        loss = super().gradient(parameters, batch, gradient)
        for name in reversed(self.names) if produced else ():
            produced(name)
        return loss


def test_a_model_that_goes_layer_by_layer_hears_whom_to_tell():
    problem = UserProblem(Layered(), DATA)
    try_out(problem, 0, 1)
    model = problem.model()
    parameters, gradient = Arena(model.layout), Arena(model.layout)
    told = []
    batch = problem.batches(0, 1).first(8)
    model.gradient(parameters, batch, gradient, lambda name: told.append(name), lambda name: told.append(name))
    assert told == ["w", "b", "b", "w"]
    model.gradient(parameters, batch, gradient)
    assert len(told) == 4


def test_a_name_that_is_no_tensors():
    model = Layered()
    model.names = ("w", "bias")
    with pytest.raises(UserError, match=r"^Layered.gradient: KeyError: 'bias'; the tensors are: w, b"):
        try_model(model)
