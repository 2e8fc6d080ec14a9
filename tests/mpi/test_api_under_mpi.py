"""Scripts under mpiexec: the examples train by Downpour, and what goes wrong on one rank ends all of them."""

import re
import sys
from pathlib import Path

import pytest

from mpi import launcher
from mpi.refusals import require_refusal, run_command

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = Path(__file__).with_name("script.py")


def run_script(*words: object, ranks: int = 3) -> launcher.Completed:
    return run_command([sys.executable, str(SCRIPT), *map(str, words)], ranks, SCRIPT.parent)


# What tests/mpi/script.py says. Not by lines: Hydra has been seen to join those of two ranks.
SAID = re.compile(r"rank \d+ (?:failed (?:True|False)(?: -?\d+\.\d\d)?|heard \d+)")


def own_output(completed: launcher.Completed) -> list[str]:
    return sorted(SAID.findall(completed.require_success().stdout))


# The examples


def test_example_of_logistic_regression(tmp_path):
    command = [sys.executable, str(EXAMPLES / "logistic_regression.py"), "--folder", str(tmp_path / "run")]
    said = run_command(command, 3, tmp_path).require_success().stdout
    assert said.count("Downpour on 3 ranks: coordinator and 1 shard, 2 replicas, 1497 examples") == 1
    (accuracy,) = re.findall(r"^accuracy ([\d.]+)$", said, re.MULTILINE)
    assert float(accuracy) > 0.9
    names = {"settings.toml", "metrics.jsonl", "parameters.safetensors", "result.json"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names


def test_example_of_matrix_factorisation(tmp_path):
    command = [sys.executable, str(EXAMPLES / "matrix_factorisation.py")]
    said = run_command(command, 3, tmp_path).require_success().stdout
    ((error, variance),) = re.findall(r"error ([\d.]+), .* variance of ([\d.]+)$", said, re.MULTILINE)
    assert float(error) < 0.1 * float(variance)  # it ends at 0.004, by itself or beside other work


# What every rank is left with


def test_rank_0_has_the_parameters():
    assert own_output(run_script("nothing", ranks=4)) == ["rank 0 failed False 3.00"] + [
        f"rank {rank} failed False" for rank in (1, 2, 3)
    ]


def test_one_rank_trains_serially():
    assert own_output(run_script("twice", ranks=1)) == ["rank 0 failed False -3.00", "rank 0 failed False 3.00"]


def test_a_script_trains_twice():
    assert own_output(run_script("twice")) == ["rank 0 failed False -3.00", "rank 0 failed False 3.00"] + [
        f"rank {rank} failed False" for rank in (1, 1, 2, 2)
    ]


def test_rank_0_alone_hears():
    completed = run_script("heard")
    assert own_output(completed) == ["rank 0 heard 2", "rank 1 heard 0", "rank 2 heard 0"]
    assert "held out" not in completed.stdout


# What goes wrong


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["bad_rule"], "rule.rate: expected float > 0"),
        (["left_out"], "rank 1: Forgetful.gradient: tensor forgotten is not overwritten whole"),
        (["too_few"], "rank 1: data: 1 training example for 2 replicas, expected at least one for each"),
        (
            ["another_model", 2],
            "rank 2: 480 training examples for a model of float32 tensors slope (1,), offset (1,), more (2,), "
            "expected the same as on rank 0",
        ),
        (["another_model", 0], "rank 1: 480 training examples for a model of float32 tensors slope (1,), offset (1,)"),
        (["other_data", 1], "rank 1: 380 training examples for a model of float32 tensors"),
        (["not_finite", 2], "the gradient has a NaN or infinity at step "),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_users_mistake_is_one_line_and_ends_all_ranks(words, text):
    require_refusal(run_script(*words), text)


@pytest.mark.parametrize("procedure", ["downpour", "sandblaster"])
def test_more_shards_than_parameters_are_refused_before_training(procedure):
    completed = run_script("more_shards_than_parameters", 0, procedure, ranks=5)
    require_refusal(completed, "server.shards: 3 shards for 2 parameters, expected fewer")
    assert "held out" not in completed.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["misfit"],
            "Widening.gradient: ValueError: a value of shape (3,) for tensor offset of shape (1,) (script.py:",
        ),
        (["misfit", "synchronous"], "Widening.gradient: ValueError: a value of shape (3,) for tensor offset"),
        (["misfit", "sandblaster"], "Widening.gradient: ValueError: a value of shape (3,) for tensor offset"),
        (["misfit_by_name"], "Renaming.gradient: KeyError: 'nope'; the tensors are: slope, offset (script.py:"),
        (["misfit_of_the_loss"], "Many.gradient returned a ndarray of shape (2,), expected the mean loss of the batch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_model_that_stops_fitting_what_it_declared_is_a_line_from_its_rank(words, text):
    completed = run_script(words[0], 2, *words[1:])
    assert completed.returncode == 2 and completed.seconds < 25 and "Traceback" not in completed.stderr, completed
    (line,) = re.findall("^distbelief: error: .*", completed.stderr, re.MULTILINE)
    assert line.startswith(f"distbelief: error: rank 2: {text}")


@pytest.mark.parametrize("rank", [1, 2])
def test_an_exception_in_a_gradient_ends_all_ranks_with_its_traceback(rank):
    completed = run_script("fails", rank)
    assert completed.returncode != 0 and completed.seconds < 25
    assert completed.stderr.count("Traceback (most recent call last)") == 1, completed
    assert "script.py" in completed.stderr and "ArithmeticError: planted" in completed.stderr


def test_an_exception_after_training_is_not_lost():
    completed = run_script("fails_afterwards", 2)
    assert completed.returncode != 0 and "ArithmeticError: planted" in completed.stderr
