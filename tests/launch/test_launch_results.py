"""What is said and kept of a run at its end."""

import io
import json
import math
import types

import pytest

from distbelief.algorithms.progress import Evaluation, Outcome
from distbelief.launch.training import _finish
from distbelief.nn import Arena, Layout
from distbelief.report import Reporter, RunFolder


@pytest.mark.parametrize(
    ("refused", "lines"), [([], []), ([0, 0], []), ([0, 7], ["refused        7  (messages, by shard: [0, 7])"])]
)
def test_what_shards_refused_is_kept_and_said_if_there_is_any(tmp_path, refused, lines):
    evaluation = Evaluation(
        time=2.0,
        step=20,
        examples=640,
        loss=0.5,
        accuracy=0.75,
        train_loss=0.5,
        examples_per_s=320.0,
        staleness=[1.0] * len(refused),
        staleness_max=[2] * len(refused),
        refused=refused,
    )
    folder, out = RunFolder(tmp_path), io.StringIO()
    job = types.SimpleNamespace(problem=types.SimpleNamespace(test=lambda: None), folder=folder)
    outcome = Outcome(False, Arena(Layout({"w": (2,)})), evaluation)
    _finish(job, Reporter(None, 640, math.inf, out), outcome)
    assert [line for line in out.getvalue().splitlines() if line.startswith("refused")] == lines
    assert json.loads((tmp_path / "result.json").read_text())["refused"] == refused
