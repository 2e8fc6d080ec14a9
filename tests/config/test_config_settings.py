"""Settings on the command line, which change what a configuration's file says."""

from pathlib import Path

import pytest
from config.small import refusal

from distbelief.config import load
from distbelief.optim import FixedRate


@pytest.mark.parametrize(
    ("setting", "found", "value"),
    [
        ("seed=7", lambda c: c.seed, 7),
        ("seed = 0x10", lambda c: c.seed, 16),
        (" seed =7", lambda c: c.seed, 7),
        ("run.folder=somewhere/else", lambda c: Path(c.run.folder).name, "else"),
        ("run.folder='quoted = word'", lambda c: Path(c.run.folder).name, "quoted = word"),
        ("run.folder=two words", lambda c: Path(c.run.folder).name, "two words"),
        ("run.folder=  spaced ", lambda c: Path(c.run.folder).name, "spaced"),
        ("run.folder=a=b", lambda c: Path(c.run.folder).name, "a=b"),
        ("run.overwrite=true", lambda c: c.run.overwrite, True),
        ("rule.rate=1e-3", lambda c: c.rule.rate, 0.001),
        ("rule={kind='fixed', rate=1}", lambda c: c.rule, FixedRate(1.0)),
        ("rule.kind=fixed", lambda c: c.rule, FixedRate(0.1)),
        ("downpour.n_push=4", lambda c: c.downpour.n_push, 4),
        ("network.layers.0.outputs=9", lambda c: [layer.outputs for layer in c.network.layers], [9, 2]),
        ("network.layers=[{kind='dense', outputs=8}]", lambda c: [layer.outputs for layer in c.network.layers], [8]),
        ("evaluate.every_examples=5_000", lambda c: c.evaluate.every_examples, 5000),
    ],
    ids=lambda parameter: parameter if isinstance(parameter, str) else "",
)
def test_settings_on_the_command_line(path, setting, found, value):
    assert found(load(path, [setting])) == value


def test_later_settings_win(path):
    assert load(path, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize("setting", ["noequals", "=3", " =3", ""])
def test_settings_without_a_key_or_value(path, setting):
    assert refusal(path, setting) == f"--set {setting}: expected section.key=value"


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("network.layers.2.outputs=3", "network.layers.2.outputs"),
        ("network.layers.first.outputs=3", "network.layers.first.outputs"),
        ("network.layers.9={outputs=3}", "network.layers.9"),
        ("run.folder.name=x", "run.folder.name"),
        ("network.layers.0.outputs.3=x", "network.layers.0.outputs.3"),
    ],
)
def test_settings_of_places_that_are_not_there(path, setting, key):
    assert refusal(path, setting) == f"--set {setting}: there is no place {key}"


def test_a_setting_is_blamed_only_for_what_it_touched(path):
    path.write_text(path.read_text().replace("rate = 0.1", "rate = 0"))
    assert refusal(path, "seed=3").startswith(f"{path}: rule.rate: ")
    assert refusal(path, "rule={kind='fixed'}", "seed=3").startswith("--set rule={kind='fixed'}: rule.rate: missing")


@pytest.mark.parametrize("setting", ["run.=3", ".folder=3", "run..folder=3"])
def test_settings_with_an_empty_step(path, setting):
    assert refusal(path, setting).startswith(f"--set {setting}: ")


@pytest.mark.parametrize("section", ["", "[run]\n"])
def test_keys_with_line_breaks_still_make_one_line(tmp_path, section):
    (tmp_path / "c.toml").write_text(section + '"a\\nb" = 1\n')
    refusal(tmp_path / "c.toml")
