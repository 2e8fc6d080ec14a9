"""A run's folder: what it holds, when, and which folders are refused."""

import json
import math
import os
import shutil

import numpy as np
import pytest
from report_cases import CONFIG, LAYOUT, an_evaluation, an_outcome

from distbelief import checkpoint
from distbelief.algorithms.progress import Evaluation
from distbelief.config import load
from distbelief.errors import UserError
from distbelief.report import RunFolder


def test_check_of_a_new_folder_makes_nothing(tmp_path):
    RunFolder(tmp_path / "runs" / "new").check(overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_may_hold_a_run_too(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    folder = RunFolder(tmp_path)
    folder.check(overwrite=False)
    folder.begin(CONFIG)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "parameters.safetensors", "result.json"])
def test_a_run_is_replaced_only_if_the_user_says_so(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match=r"run\.folder: .* already holds a run .*run\.overwrite=true") as caught:
        RunFolder(tmp_path).check(overwrite=False)
    assert name in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    RunFolder(tmp_path).check(overwrite=True)
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize("below", [[], ["a"], ["a", "b"]])
def test_a_file_in_the_way_is_named(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.folder: .*cannot be made: .*file is not a folder"):
        RunFolder(tmp_path.joinpath("file", *below)).check(overwrite=True)


def test_a_folder_that_we_may_not_write_to_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
    with pytest.raises(UserError, match=r"run\.folder: .*we may write to"):
        RunFolder(tmp_path / "new").check(overwrite=False)


def test_begin_leaves_the_configuration_and_no_metrics_yet(tmp_path):
    RunFolder(tmp_path / "runs" / "new").begin(CONFIG)
    files = {file.name for file in (tmp_path / "runs" / "new").iterdir()}
    assert files == {"config.toml", "metrics.jsonl"}
    assert load(tmp_path / "runs" / "new" / "config.toml") == CONFIG
    assert (tmp_path / "runs" / "new" / "metrics.jsonl").read_text() == ""


def test_begin_takes_away_what_an_earlier_run_left(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG)
    folder.record(an_evaluation())
    folder.end(an_outcome(), {})
    folder.begin(CONFIG)
    assert {file.name for file in tmp_path.iterdir()} == {"config.toml", "metrics.jsonl"}
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_every_evaluation_is_a_line_of_metrics(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG)
    folder.record(an_evaluation(examples=0, train_loss=None))
    folder.record(an_evaluation(staleness=[0.5, 1.5], staleness_max=[3, 4], updates=[10, 11], bytes_pushed=99))
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["examples"] == 0 and first["train_loss"] is None and first["staleness"] == []
    assert second["accuracy"] == 0.8125 and second["staleness"] == [0.5, 1.5] and second["bytes_pushed"] == 99
    assert set(first) == set(second) == set(Evaluation.__dataclass_fields__)


def test_what_is_not_finite_is_null(tmp_path):
    """JSON knows neither NaN nor infinity; a line search may meet both."""
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG)
    folder.record(an_evaluation(loss=math.nan, train_loss=math.inf, staleness=[math.nan, 1.0]))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    told = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert told["loss"] is None and told["train_loss"] is None and told["staleness"] == [None, 1.0]


def test_end_leaves_parameters_and_the_result(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG)
    folder.end(an_outcome(), {"complete": True, "test_accuracy": 0.875})
    assert json.loads((tmp_path / "result.json").read_text()) == {"complete": True, "test_accuracy": 0.875}
    loaded = checkpoint.load(tmp_path / "parameters.safetensors", LAYOUT)
    np.testing.assert_array_equal(loaded.flat, np.arange(LAYOUT.size))
    assert not [file for file in tmp_path.iterdir() if "partial" in file.name]


def test_the_result_comes_last(tmp_path, monkeypatch):
    """A run that has a result is complete: one whose parameters could not be written has none."""
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG)

    def fail(path, parameters):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save", fail)
    with pytest.raises(OSError):
        folder.end(an_outcome(), {"complete": True})
    assert not (tmp_path / "result.json").exists()


def test_a_folder_that_goes_away_is_named(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(CONFIG)
    shutil.rmtree(tmp_path / "run")
    said = r"^run\.folder: .*run cannot be written to: No such file or directory$"
    with pytest.raises(UserError, match=said):
        folder.record(an_evaluation())
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"^run\.folder: .*run cannot be written to: File exists$"):
        folder.begin(CONFIG)
