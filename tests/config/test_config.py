"""Configurations: what is wrong with one is said in one line, for the user to mend."""

import copy
from pathlib import Path

import pytest
import tomli_w
from config.small import SMALL, fault, refusal

from distbelief.config import dump, load
from distbelief.optim import Adagrad

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def test_defaults(path):
    config = load(path)
    assert config.seed == 0 and config.rule == Adagrad(0.1) and config.procedure == "downpour"
    assert config.downpour.n_push == config.downpour.n_fetch == 1 and config.downpour.local_rate is None
    assert config.data.test is None and config.data.batch == 32 and (config.data.scale, config.data.shift) == (1, 0)
    assert config.network.layers[1].activation == "linear" and config.network.dtype == "float32"
    assert config.stop.epochs == 1 and config.stop.seconds is None
    assert not config.run.overwrite and config.server.shards == 1


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_load(example):
    load(example)


def test_the_fashion_mnist_example():
    config = load(EXAMPLES / "fashion_mnist.toml")
    assert config.network.inputs == 28 * 28
    assert [(layer.outputs, layer.activation) for layer in config.network.layers][-1] == (10, "linear")
    assert config.data.scale == 1 / 255


def test_paths_become_absolute_against_the_current_directory(path, tmp_path, monkeypatch):
    """Of the user who starts the run, not of the file."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", "/home/of/somebody")
    config = load(path, ["data.test.inputs=~/x.npy", "data.test.labels=/y.npy"])
    assert config.run.folder == str(tmp_path / "elsewhere" / "runs" / "small")
    assert config.data.train.inputs == str(tmp_path / "elsewhere" / "x.npy")
    assert (config.data.test.inputs, config.data.test.labels) == ("/home/of/somebody/x.npy", "/y.npy")


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["rule={kind='fixed', rate=1e-300}", "stop.seconds=0.5", "downpour.local_rate=0", "seed=18446744073709551616"],
        ["data.test={inputs='a', labels='b.npz:member'}", "data.scale=0.1", "run.folder='a \"b\" \\ c'"],
    ],
)
def test_what_is_dumped_loads_as_it_was(path, tmp_path, settings):
    config = load(path, settings)
    (tmp_path / "copy.toml").write_text(dump(config))
    assert load(tmp_path / "copy.toml") == config


UNKNOWN = [
    ("sed=1", "sed", "seed"),
    ("run.foldr=x", "run.foldr", "folder"),
    ("downpour.npush=2", "downpour.npush", "n_push"),
    ("rule.momentum=0.9", "rule.momentum", "rate"),
    ("data.train.image=x", "data.train.image", "inputs"),
    ("data.test={inputs='x', labels='y', weights='z'}", "data.test.weights", "labels"),
    ("network.layers.0.units=3", "network.layers.0.units", "outputs"),
    ("network.layers.1.units=3", "network.layers.1.units", "outputs"),
    ("momentum.rate=3", "momentum", "rule"),
]


@pytest.mark.parametrize(("setting", "key", "known"), UNKNOWN, ids=[key for _, key, _ in UNKNOWN])
def test_unknown_keys_name_the_known_ones(path, setting, key, known):
    text = fault(path, setting)
    assert text.startswith(f"{key}: unknown key, expected one of: ")
    assert known in text.partition("one of: ")[2].split(", ")


WRONG = [
    ("seed=-1", "seed", "int >= 0", "-1"),
    ("seed=true", "seed", "int", "True"),
    ("seed=1.5", "seed", "int", "1.5"),
    ("run.folder=5", "run.folder", "str", "5"),
    ("run.overwrite=yes", "run.overwrite", "bool", "'yes'"),
    ("run.timeout=0", "run.timeout", "float > 0.0", "0"),
    ("data.held_out=0", "data.held_out", "int >= 1", "0"),
    ("data.batch=0", "data.batch", "int >= 1", "0"),
    ("data.scale=1/255", "data.scale", "float", "'1/255'"),
    ("data.train.inputs=3", "data.train.inputs", "str", "3"),
    ("network.inputs=0", "network.inputs", "int >= 1", "0"),
    ("network.inputs=784.0", "network.inputs", "int", "784.0"),
    ("network.layers=[]", "network.layers", "length >= 1", "[]"),
    ("network.layers=3", "network.layers", "", "3"),
    ("network.layers.1=3", "network.layers.1", "", "3"),
    ("network.layers.0.outputs=-1", "network.layers.0.outputs", "int >= 1", "-1"),
    ("network.layers.1.outputs=-1", "network.layers.1.outputs", "int >= 1", "-1"),
    ("network.layers.1.outputs=ten", "network.layers.1.outputs", "int", "'ten'"),
    ("network.layers.1.activation=gelu", "network.layers.1.activation", "", "'gelu'"),
    ("network.layers.1.activation=3", "network.layers.1.activation", "", "3"),
    ("network.layers.0.kind=conv", "network.layers.0.kind", "", "'conv'"),
    ("network.loss=hinge", "network.loss", "", "'hinge'"),
    ("network.dtype=float16", "network.dtype", "", "'float16'"),
    ("rule.kind=adam", "rule.kind", "", "'adam'"),
    ("rule.rate=0", "rule.rate", "float > 0.0", "0"),
    ("rule.rate=nan", "rule.rate", "float > 0.0", "nan"),
    ("rule.rate=fast", "rule.rate", "float", "'fast'"),
    ("rule=3", "rule", "", "3"),
    ("downpour.n_push=0", "downpour.n_push", "int >= 1", "0"),
    ("downpour.n_fetch=-4", "downpour.n_fetch", "int >= 1", "-4"),
    ("downpour.n_push=1.5", "downpour.n_push", "int", "1.5"),
    ("downpour.warmstart=-1", "downpour.warmstart", "int >= 0", "-1"),
    ("downpour.local_rate=-0.1", "downpour.local_rate", "float >= 0.0", "-0.1"),
    ("server.shards=0", "server.shards", "int >= 1", "0"),
    ("stop.epochs=0", "stop.epochs", "int >= 1", "0"),
    ("stop.epochs=", "stop.epochs", "int", "''"),
    ("stop.seconds=-1", "stop.seconds", "float > 0.0", "-1"),
    ("evaluate.every_examples=0", "evaluate.every_examples", "int >= 1", "0"),
    ("procedure=sandblast", "procedure", "", "'sandblast'"),
    ("sandblaster.method={kind='lbfgs', history=0}", "sandblaster.method.history", "int >= 1", "0"),
    ("sandblaster.method={kind='newton'}", "sandblaster.method.kind", "", "'newton'"),
    ("sandblaster.portion=0", "sandblaster.portion", "int >= 1", "0"),
    ("sandblaster.batch={fraction=2}", "sandblaster.batch.fraction", "float <= 1.0", "2"),
    ("sandblaster.batch={overlap=1}", "sandblaster.batch.overlap", "float < 1.0", "1"),
    ("sandblaster.stop.evaluations=0", "sandblaster.stop.evaluations", "int >= 1", "0"),
]


@pytest.mark.parametrize(("setting", "key", "expected", "found"), WRONG, ids=[setting for setting, *_ in WRONG])
def test_wrong_values_are_named_with_what_was_expected(path, setting, key, expected, found):
    text = fault(path, setting)
    assert text.startswith(f"{key}: ")
    assert expected in text and found in text


@pytest.mark.parametrize(
    ("setting", "choices"),
    [
        ("rule.kind=adam", ["fixed", "adagrad"]),
        ("network.layers.1.activation=gelu", ["linear", "sigmoid", "tanh", "relu"]),
        ("network.layers.1.kind=conv", ["dense"]),
        ("network.loss=hinge", ["softmax"]),
        ("network.dtype=float16", ["float32", "float64"]),
        ("procedure=hogwild", ["downpour", "synchronous"]),
    ],
)
def test_words_that_are_no_choice_come_with_the_choices(path, setting, choices):
    text = fault(path, setting)
    assert "expected" in text and all(choice in text for choice in choices)


@pytest.mark.parametrize("setting", ["rule.rate=inf", "data.scale=nan", "data.shift=inf", "downpour.local_rate=inf"])
def test_numbers_must_be_finite(path, setting):
    fault(path, setting)


@pytest.mark.parametrize(
    "key",
    [
        "run",
        "data",
        "network",
        "rule",
        "stop",
        "run.folder",
        "data.train",
        "data.held_out",
        "network.inputs",
        "network.layers",
        "rule.kind",
        "rule.rate",
    ],
)
def test_what_is_missing_is_named(tmp_path, key):
    *sections, last = key.split(".")
    here = table = copy.deepcopy(SMALL)
    for section in sections:
        here = here[section]
    del here[last]
    (tmp_path / "c.toml").write_text(tomli_w.dumps(table))
    choices = ", expected one of: fixed, adagrad, momentum" if key == "rule.kind" else ""
    assert fault(tmp_path / "c.toml") == f"{key}: missing{choices}"


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("{}", "expected either inputs or generated, found {}"),
        ("{inputs='a', labels='b', generated=3}", "expected either inputs or generated"),
        ("{generated=3, labels='b'}", "expected no labels beside generated"),
        ("{generated=0}", "expected int >= 1"),
    ],
)
def test_examples_come_from_one_place(path, train, words):
    assert words in fault(path, f"data.train={train}")


def test_a_layer_without_outputs(path):
    layers = "network.layers=[{kind='dense', outputs=3}, {kind='dense', activation='relu'}]"
    assert fault(path, layers) == "network.layers.1.outputs: missing"


def test_the_first_wrong_layer_is_named(path):
    layers = ", ".join(f"{{kind='dense', outputs={n}}}" for n in (3, 4, 0, -1))
    text = fault(path, f"network.layers=[{layers}]")
    assert text.startswith("network.layers.2.outputs: ") and text.endswith("0")


def test_a_run_needs_an_end(path):
    assert refusal(path, "stop={}") == f"{path}: stop: expected epochs, seconds or both"
    assert load(path, ["stop={seconds=3}"]).stop.seconds == 3


def test_sandblaster_needs_neither_rule_nor_stop(tmp_path):
    table = {key: value for key, value in SMALL.items() if key not in ("rule", "stop")}
    (tmp_path / "c.toml").write_text(tomli_w.dumps(table))
    config = load(tmp_path / "c.toml", ["procedure=sandblaster", "sandblaster.warmstart=first"])
    assert config.rule is None and config.stop is None
    assert config.sandblaster.warmstart == str(Path("first").absolute())
    (tmp_path / "again.toml").write_text(dump(config))
    assert load(tmp_path / "again.toml") == config
    assert refusal(tmp_path / "c.toml", "procedure=synchronous") == f"{tmp_path / 'c.toml'}: rule: missing"


@pytest.mark.parametrize(
    ("text", "where"), [(b"seed = \n", "line 1"), (b"a = 1\na = 2\n", "line 2"), (b"[run\n", "line 1"), (b"\xff", "")]
)
def test_files_that_are_not_toml(tmp_path, text, where):
    (tmp_path / "c.toml").write_bytes(text)
    text = fault(tmp_path / "c.toml")
    assert text.startswith("not TOML: ") and where in text


def test_an_empty_file(tmp_path):
    (tmp_path / "c.toml").write_text("")
    assert fault(tmp_path / "c.toml") == "run: missing"


def test_a_file_that_is_missing_and_one_that_is_a_folder(tmp_path):
    assert fault(tmp_path / "c.toml") == "No such file or directory"
    assert fault(tmp_path) == "Is a directory"
