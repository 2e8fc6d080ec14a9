"""`distbelief train` with replicas of several ranks each, as users start it."""

import re

import pytest
import safetensors.numpy

from distbelief.launch.evaluation import evaluate
from mpi import launcher, small_problem
from mpi.refusals import require_refusal, run_command
from mpi.small_problem import EPOCHS, TRAINING, Problem, Run
from mpi.test_failures import train_with

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(launcher.find_mpiexec() is None, reason="no mpiexec"),
]


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    return small_problem.write(tmp_path_factory.mktemp("problem"))


@pytest.mark.parametrize("place", ["apart", "beside"])
def test_replicas_of_two_ranks_learn(problem, tmp_path, place):
    run = Run(tmp_path / "run")
    settings = ["network.partitions=2", "server.shards=2", f"server.place={place}"]
    ranks = 6 if place == "apart" else 4
    completed = run_command(problem.train(run.folder, settings), ranks, problem.folder).require_success()
    assert "2 replicas of 2 ranks each" in completed.stdout
    assert run.files == {"config.toml", "metrics.jsonl", "parameters.safetensors", "result.json"}
    result, (first, *_, last) = run.result, run.metrics
    assert result["complete"] and result["test_accuracy"] > 0.95 and result["held_out_accuracy"] > 0.95
    assert first["examples"] == 0 and first["accuracy"] < 0.4  # nobody trains before it is through
    assert last["examples"] == EPOCHS * TRAINING and last["updates"][0] == last["updates"][1]
    which, loss, accuracy = evaluate(str(run.folder))  # on one rank, not cut
    assert which == "test" and accuracy == result["test_accuracy"]
    assert loss == pytest.approx(result["test_loss"], rel=1e-5)


def test_one_replica_of_three_ranks_trains_as_one_process_does(problem, tmp_path):
    settings = [
        "rule={kind='fixed', rate=0.1}",
        "network.dtype=float64",
        "network.partitions=3",
        "network.penalty=0.001",
    ]
    tensors = {}
    for ranks in (None, 5):
        run = Run(tmp_path / f"{ranks}")
        command = problem.train(run.folder, [*settings, f"server.shards={2 if ranks else 1}"])
        run_command(command, ranks, problem.folder).require_success()
        tensors[ranks] = safetensors.numpy.load_file(run.folder / "parameters.safetensors")
    for name, serial in tensors[None].items():
        assert tensors[5][name] == pytest.approx(serial, rel=1e-9, abs=1e-12)


def test_a_loss_that_is_not_finite_keeps_the_good_parameters(problem, tmp_path):
    run = Run(tmp_path / "run")
    settings = ["network.partitions=2", "rule={kind='fixed', rate=1e38}", "evaluate.every_examples=20"]
    completed = run_command(problem.train(run.folder, settings), 3, problem.folder)
    assert completed.returncode == 2 and "kept the parameters" in completed.stderr, completed
    assert run.result["complete"] is False
    tensors = safetensors.numpy.load_file(run.folder / "parameters.safetensors")
    assert tensors["dense0.w"].shape == (small_problem.WIDTH, small_problem.SIDE**2)


@pytest.mark.parametrize(
    ("ranks", "settings", "words"),
    [
        (4, ["network.partitions=2"], "network.partitions: 4 ranks leave 3 for replicas of 2 ranks each"),
        (4, ["network.partitions=3", "network.layers.0.outputs=2"], "3 partitions of layer dense0: it has 2 rows"),
        (3, ["network.partitions=2", "procedure=synchronous"], "network.partitions: 2, expected 1"),
    ],
)
def test_what_cannot_be_cut_is_refused(problem, tmp_path, ranks, settings, words):
    require_refusal(run_command(problem.train(tmp_path / "run", settings), ranks, problem.folder), words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", [2, 3])
def test_a_silent_partition_is_named(problem, tmp_path, rank):
    settings = ["run.timeout=3", "network.partitions=2"]
    completed = train_with("falls-silent:in-gradient", rank, problem, tmp_path / "run", *settings)
    said = re.findall(r"^.*DeadlineExpired: (.*)$", completed.stderr, re.MULTILINE)
    partition = rank - 2
    message = rf"rank {5 - rank} waited 3 s for .*partition {partition} of the replica \(rank {rank}\)"
    assert any(re.match(message, line) for line in said), completed
