"""A configuration made real, on data whose every example carries its own number."""

import itertools

import msgspec
import numpy as np
import pytest

import distbelief.experiment
from distbelief.config import Config
from distbelief.errors import UserError
from distbelief.experiment import Experiment
from distbelief.nn import Arena
from distbelief.nn.interval import Interval

DENSE = {"kind": "dense"}
EXAMPLES, HELD_OUT, CLASSES = 103, 13, 3


@pytest.fixture
def files(tmp_path):
    """Training files of which example i is [i, 2 i] and has label i % 3, and test files of 7 more."""
    paths = {}
    for name, numbers in [("train", np.arange(EXAMPLES)), ("test", np.arange(1000, 1007))]:
        np.save(tmp_path / f"{name}-x.npy", np.stack([numbers, 2 * numbers], axis=1).astype(np.float32))
        np.save(tmp_path / f"{name}-y.npy", numbers % CLASSES)
        paths[name] = {"inputs": str(tmp_path / f"{name}-x.npy"), "labels": str(tmp_path / f"{name}-y.npy")}
    return paths


def an_experiment(files, data=(), network=(), seed=5):
    table = {
        "run": {"folder": "unused"},
        "data": {"train": files["train"], "held_out": HELD_OUT, "batch": 8} | dict(data),
        "network": {"inputs": 2, "layers": [DENSE | {"outputs": 4, "activation": "tanh"}, DENSE | {"outputs": CLASSES}]}
        | dict(network),
        "rule": {"kind": "fixed", "rate": 0.1},
        "stop": {"epochs": 1},
        "seed": seed,
    }
    return Experiment(msgspec.convert(table, Config))


def numbers(batches):
    """The numbers of all examples in `batches`, checking that inputs and labels belong together."""
    seen = []
    for batch in batches:
        first, second = batch.x_in
        np.testing.assert_array_equal(second, 2 * first)
        np.testing.assert_array_equal(batch.labels, first.astype(int) % CLASSES)
        seen += first.astype(int).tolist()
    return seen


@pytest.mark.parametrize("replicas", [1, 2, 7, EXAMPLES - HELD_OUT])
def test_every_training_example_is_in_one_replicas_part_and_none_is_held_out(files, replicas):
    experiment = an_experiment(files)
    parts = [numbers(experiment.batches(replica, replicas).epoch(0)) for replica in range(replicas)]
    held_out = numbers(experiment.held_out())
    assert len(held_out) == HELD_OUT and experiment.training_examples == EXAMPLES - HELD_OUT
    assert sorted([*held_out, *(number for part in parts for number in part)]) == list(range(EXAMPLES))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_every_rank_holds_out_the_same_examples(files):
    first, other_rank, other_seed = (numbers(an_experiment(files, seed=seed).held_out()) for seed in (5, 5, 6))
    assert first == other_rank and sorted(first) != sorted(other_seed)


def test_epochs_are_shuffled_and_repeatable(files):
    experiment = an_experiment(files)
    first, second = (numbers(experiment.batches(0, 2).epoch(epoch)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) and first != second and first != sorted(first)
    assert numbers(an_experiment(files).batches(0, 2).epoch(1)) == second


def test_every_replica_has_an_order_of_its_own(files):
    """As places within their parts, which are equally long."""
    experiment = an_experiment(files)
    orders = [np.argsort(numbers(experiment.batches(replica, 2).epoch(0))).tolist() for replica in range(2)]
    assert len(orders[0]) == len(orders[1]) and orders[0] != orders[1]


def test_batches_have_the_size_of_the_configuration(files):
    sizes = [batch.size for batch in an_experiment(files).batches(0, 1).epoch(0)]
    assert sizes == [8] * 11 + [2]


def test_more_replicas_than_training_examples(files):
    with pytest.raises(UserError, match="90 training examples for 91 replicas"):
        an_experiment(files).batches(0, 91)


def test_held_out_must_leave_something(files):
    with pytest.raises(UserError, match=r"data\.held_out: 103, expected 0 to 102"):
        an_experiment(files, data={"held_out": EXAMPLES})


def test_test_examples_come_in_file_order(files):
    assert numbers(an_experiment(files, data={"test": files["test"]}).test()) == list(range(1000, 1007))
    assert an_experiment(files).test() is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_are_scaled_and_shifted_in_the_networks_type(files, dtype):
    data = {"scale": 0.5, "shift": -1.0, "test": files["test"]}
    experiment = an_experiment(files, data, {"dtype": dtype})
    for batches in (experiment.batches(0, 1).epoch(0), experiment.held_out(), experiment.test()):
        for batch in batches:
            assert batch.x_in.dtype == dtype
            np.testing.assert_array_equal(batch.x_in[1] + 1, 2 * (batch.x_in[0] + 1))
            np.testing.assert_array_equal((2 * (batch.x_in[0] + 1)).astype(int) % CLASSES, batch.labels)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_has_the_layers_of_the_configuration(files, dtype):
    model = an_experiment(files, network={"dtype": dtype}).model()
    assert model.dtype == dtype
    assert list(model.layout.shapes.items()) == [
        ("dense0.w", (4, 2)),
        ("dense0.b", (4,)),
        ("dense1.w", (3, 4)),
        ("dense1.b", (3,)),
    ]
    assert [layer.activation for layer in model.layers] == ["tanh", "linear"]


def test_the_model_of_a_replica_holds_what_it_computes_with(files):
    for dtype, held in (("float32", np.float32), ("float64", np.float64), ("bfloat16", np.uint16)):
        experiment = an_experiment(files, network={"dtype": dtype})
        assert experiment.replica_model().held == held
        assert experiment.model().held == {"bfloat16": np.float32}.get(dtype, dtype)
    layers = [{"kind": "convolution", "maps": 2, "window": 1}, DENSE | {"outputs": CLASSES}]
    filters = {"inputs": [1, 2, 1], "layers": layers, "dtype": "bfloat16"}
    assert an_experiment(files, network=filters).replica_model().held == np.float32


@pytest.mark.parametrize(("batch", "evaluation"), [(8, 5), (5, 8)])
def test_the_model_takes_training_batches_and_evaluation_batches(files, monkeypatch, batch, evaluation):
    """Its buffers hold the larger of the two."""
    monkeypatch.setattr(distbelief.experiment, "EVALUATION_BATCH", evaluation)
    experiment = an_experiment(files, data={"batch": batch, "test": files["test"]})
    model = experiment.model()
    parameters, gradient = (Arena(model.layout, model.dtype) for _ in range(2))
    model.initialise(parameters, experiment.seed)
    for minibatch in experiment.batches(0, 1).epoch(0):
        assert minibatch.size <= batch and np.isfinite(model.gradient(parameters, minibatch, gradient))
    for minibatch in (*experiment.held_out(), *experiment.test()):
        assert minibatch.size <= evaluation and np.isfinite(model.score(parameters, minibatch)[0])


def test_models_share_no_buffers(files):
    """The coordinator scores with one while the replica beside it trains with another."""
    experiment = an_experiment(files)
    first, second = experiment.model(), experiment.model()
    assert first is not second
    assert not np.shares_memory(first._buffers._arena, second._buffers._arena)


@pytest.mark.parametrize("which", ["train", "test"])
def test_files_that_do_not_fit_the_network_are_named(files, which):
    data = {"test": files["test"]}
    np.save(files[which]["inputs"], np.zeros((len(np.load(files[which]["labels"])), 3), np.float32))
    with pytest.raises(
        UserError,
        match=rf"{which}-x\.npy: an example has 3 numbers \(shape \[3\]\), expected 2 \(shape \[2\]\), network\.inputs",
    ):
        an_experiment(files, data)


def test_labels_beyond_the_networks_classes_are_named(files):
    with pytest.raises(
        UserError, match=r"train-y\.npy: label 2 at index 2, expected 0 to 1 for .* \[2\] of network\.layers\.0 "
    ):
        an_experiment(files, network={"layers": [DENSE | {"outputs": 2}]})


def test_a_file_that_is_missing_is_named(files):
    with pytest.raises(UserError, match=r"nowhere\.npy: cannot be read"):
        an_experiment(files, data={"test": {"inputs": "nowhere.npy", "labels": files["test"]["labels"]}})


IMAGE_LAYERS = [
    {"kind": "local", "maps": 2, "window": 3},
    {"kind": "pool", "window": 2},
    {"kind": "normalise", "window": 3},
    DENSE | {"outputs": CLASSES},
]


@pytest.mark.parametrize("shape", [(8, 10, 2), (8, 20), (160,)])
@pytest.mark.parametrize("loss", ["softmax", "logistic", "squared"])
def test_images_come_in_any_shape_of_as_many_numbers(files, shape, loss):
    """Whatever their shape in the file: the network sees [H, W, C]."""
    images = np.random.default_rng(0).standard_normal((EXAMPLES, 8, 10, 2)).astype(np.float32)
    np.save(files["train"]["inputs"], images.reshape(EXAMPLES, *shape))
    experiment = an_experiment(files, network={"inputs": [8, 10, 2], "layers": IMAGE_LAYERS, "loss": loss})
    model = experiment.model()
    assert list(model.layout.shapes) == ["local0.w", "local0.b", "dense3.w", "dense3.b"]
    assert [layer.shape for layer in model.layers] == [(6, 8, 2), (3, 4, 2), (3, 4, 2), (3,)]
    batch = next(experiment.batches(0, 1).epoch(0))
    assert any((batch.x_in[:, 0].reshape(8, 10, 2) == image).all() for image in images)
    parameters, gradient = (Arena(model.layout) for _ in range(2))
    model.initialise(parameters, 0)
    assert np.isfinite(model.gradient(parameters, batch, gradient)) and gradient["local0.w"].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_targets_belong_to_their_examples(files, dtype):
    """Of example i: 3 i and -i."""
    numbers = np.arange(EXAMPLES)
    np.save(files["train"]["labels"], np.stack([3 * numbers, -numbers], axis=1).astype(np.float32))
    layers = [DENSE | {"outputs": 2}]
    experiment = an_experiment(files, network={"layers": layers, "loss": "squared", "dtype": dtype})
    model = experiment.model()
    parameters = Arena(model.layout, dtype)
    for batch in itertools.chain(experiment.batches(0, 1).epoch(0), experiment.held_out()):
        assert batch.labels.dtype == dtype and batch.labels.shape == (2, batch.size)
        np.testing.assert_array_equal(batch.labels, [3 * batch.x_in[0], -batch.x_in[0]])
        loss, right = model.score(parameters, batch)  # all parameters are zero
        assert loss == pytest.approx((batch.labels**2).sum() / 2) and right is None


def test_the_penalty_is_part_of_the_gradient_and_not_of_the_score(files):
    plain, penalised = (an_experiment(files, network={"penalty": p}).model() for p in (0.0, 0.5))
    parameters, first, second = (Arena(plain.layout) for _ in range(3))
    plain.initialise(parameters, 0)
    batch = next(an_experiment(files, data={"scale": 0.01}).batches(0, 1).epoch(0))
    weights = sum((parameters[name] ** 2).sum() for name in ("dense0.w", "dense1.w"))
    difference = penalised.gradient(parameters, batch, second) - plain.gradient(parameters, batch, first)
    assert difference == pytest.approx(0.25 * weights, rel=1e-5)
    for name in parameters:
        expected = 0.5 * parameters[name] if name.endswith(".w") else 0
        np.testing.assert_allclose(second[name] - first[name], expected, rtol=0, atol=1e-6)
    assert penalised.score(parameters, batch) == plain.score(parameters, batch)


@pytest.mark.parametrize(
    ("targets", "layers", "loss", "text"),
    [
        (
            np.zeros((EXAMPLES, 3)),
            2,
            "squared",
            r"an example has 3 targets, expected 2 for the outputs \[2\] of network\.layers\.0 \(dense\)",
        ),
        (np.zeros(EXAMPLES), 2, "squared", r"an example has 1 targets, expected 2"),
        (np.zeros((EXAMPLES, 3)), 3, "softmax", r"labels have shape \[103, 3\], expected \[examples\]"),
        (np.full(EXAMPLES, 0.5), 2, "logistic", r"label 0\.5 at index 0, expected a whole number"),
        (np.full(EXAMPLES, 2), 2, "squared", r"label 2 at index 0, expected 0 to 1"),
    ],
)
def test_targets_that_do_not_fit_are_named(files, targets, layers, loss, text):
    np.save(files["train"]["labels"], targets)
    with pytest.raises(UserError, match=r"train-y\.npy: " + text):
        an_experiment(files, network={"layers": [DENSE | {"outputs": layers}], "loss": loss})


def test_a_partition_reads_its_part_of_the_same_examples(files):
    experiment = an_experiment(files, data={"test": files["test"]})
    narrowed = experiment.reading(Interval(1, 2))
    for whole, part in [
        (experiment.batches(1, 3).epoch(0), narrowed.batches(1, 3).epoch(0)),
        (experiment.held_out(), narrowed.held_out()),
        (experiment.test(), narrowed.test()),
    ]:
        for batch, other in zip(whole, part, strict=True):
            np.testing.assert_array_equal(other.x_in, batch.x_in[1:])
            np.testing.assert_array_equal(other.labels, batch.labels)


def test_evaluations_of_large_images_take_little_memory(files, monkeypatch):
    example = 8 * (4 + CLASSES)  # bytes of outputs and of gradients by them
    monkeypatch.setattr(distbelief.experiment, "EVALUATION_BYTES", 20 * example)
    assert an_experiment(files).model().batch == 20
    assert an_experiment(files, data={"batch": 30}).model().batch == 30
