"""What Sandblaster refuses before any rank begins to work, and where it begins."""

import msgspec
import numpy as np
import pytest

from distbelief import checkpoint
from distbelief.adapters.data import UserProblem
from distbelief.adapters.model import Model
from distbelief.algorithms.beginning import begin
from distbelief.algorithms.sandblaster.settings import ChangingBatch, Sandblaster
from distbelief.algorithms.settings import Downpour, Evaluate, Stop
from distbelief.config import Config
from distbelief.errors import UserError
from distbelief.experiment import Experiment
from distbelief.launch import sandblaster
from distbelief.launch.job import Job
from distbelief.nn.arena import Arena
from distbelief.optim import StopRules
from distbelief.server import Server


class Settings(msgspec.Struct, frozen=True):
    sandblaster: Sandblaster
    server: Server = Server()
    stop: Stop | None = None
    evaluate: Evaluate = Evaluate()
    downpour: Downpour = Downpour()
    procedure: str = "sandblaster"
    rule: None = None


class Line(Model):
    tensors = {"w": 3}

    def gradient(self, parameters, batch, gradient) -> float:
        (x,) = batch
        gradient["w"] = x.mean(axis=0)
        return float(np.mean(x @ parameters["w"]))


class Dropout(Line):
    def __init__(self):
        self._random = np.random.default_rng(0)

    def gradient(self, parameters, batch, gradient) -> float:
        loss = super().gradient(parameters, batch, gradient)
        gradient.flat[:] *= self._random.random(3) < 0.5
        return loss


def job(settings: Sandblaster, model=Line, **others) -> Job:
    data = (np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32),)
    problem = UserProblem(model, data, held_out=100)
    return Job(problem, Settings(settings, **others), 10.0, try_out=lambda replica, replicas: None)


def refusal(*arguments, rank: int = 0, ranks: int = 4, **settings) -> str:
    with pytest.raises(UserError) as error:
        sandblaster.check(job(*arguments, **settings), rank, ranks)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_job_without_fault():
    for rank in range(4):
        sandblaster.check(job(Sandblaster(portion=900)), rank, 4)
    sandblaster.check(job(Sandblaster(portion=100)), 0, 1)


def test_a_batch_smaller_than_a_portion():
    text = "sandblaster.portion: 901, expected at most 900, the examples in a batch"
    assert refusal(Sandblaster(portion=901)) == text
    text = "sandblaster.portion: 100, expected at most 90, the examples in a batch"
    assert refusal(Sandblaster(portion=100, batch=ChangingBatch(fraction=0.1))) == text


def test_a_gradient_by_chance_is_found_on_the_ranks_that_compute_one():
    text = refusal(Sandblaster(portion=100), Dropout, rank=3)
    assert text.startswith("Dropout: two gradients of the same examples at the same parameters differ (losses ")
    assert text == refusal(Sandblaster(portion=100), Dropout, ranks=1)


def test_a_loss_that_is_not_finite_at_the_beginning():
    class Infinite(Line):
        def gradient(self, parameters, batch, gradient) -> float:
            gradient["w"] = np.zeros(3)
            return float("inf")

    text = "Infinite: the loss is inf at the initial parameters, expected a finite number"
    assert refusal(Sandblaster(portion=100), Infinite, rank=1) == text


def test_half_the_bytes_are_not_for_sandblaster():
    text = refusal(Sandblaster(portion=100), server=Server(push_wire="bfloat16"))
    assert text == "server.push_wire: bfloat16, expected native: Sandblaster's vectors travel in full"


def test_more_shards_than_parameters_or_ranks():
    assert "4 shards for 3 parameters" in refusal(Sandblaster(portion=100), ranks=9, server=Server(shards=4))
    assert "server.shards: 4" in refusal(Sandblaster(portion=100), server=Server(shards=4))


def cut_job(partitions: int, warmstart: str | None = None) -> Job:
    """A network of 7 and 3 units over data that is made up."""
    table = {
        "run": {"folder": "nowhere"},
        "data": {"train": {"generated": 100}, "held_out": 10, "batch": 5},
        "network": {
            "inputs": 4,
            "layers": [{"kind": "dense", "outputs": 7}, {"kind": "dense", "outputs": 3}],
            "partitions": partitions,
        },
        "procedure": "sandblaster",
        "sandblaster": {"portion": 10} | ({} if warmstart is None else {"warmstart": warmstart}),
    }
    config = msgspec.convert(table, Config)
    experiment = Experiment(config)
    return Job(experiment, config, 10.0, try_out=experiment.batches, partitions=partitions)


def test_replicas_of_several_ranks():
    made = cut_job(3)
    for rank in range(7):
        sandblaster.check(made, rank, 7)
    text = "Sandblaster (lbfgs) on 7 ranks: coordinator and 1 shard, 2 replicas of 3 ranks each, "
    assert sandblaster.cast(made, 7) == text + "90 examples in 9 portions"
    sandblaster.check(made, 0, 1)  # one rank computes the whole
    with pytest.raises(UserError, match="8 ranks leave 7 for replicas of 3 ranks each, expected a multiple of 3"):
        sandblaster.check(made, 0, 8)
    with pytest.raises(UserError, match="4 partitions of layer dense1: it has 3 rows that can be cut"):
        sandblaster.check(cut_job(4), 4, 5)


def test_a_warmstart_from_a_file_or_a_folder_of_a_run(tmp_path):
    made = job(Sandblaster()).problem.model()
    checkpoint.save(tmp_path / "parameters.safetensors", Arena(made.layout, made.dtype, np.float32([1, 2, 3])))
    for path in (tmp_path, tmp_path / "parameters.safetensors"):
        warm = job(Sandblaster(portion=100, warmstart=str(path)))
        sandblaster.check(warm, 1, 4)
        begun = sandblaster.Warmstarted(warm.problem, sandblaster._beginning(warm))
        parameters = Arena(made.layout, made.dtype)
        begun.model().initialise(parameters, 0)
        assert parameters.flat.tolist() == [1, 2, 3]
        assert begun.training_examples == 900
        begin(begun.model(), 0, interval := np.zeros(2, np.float32), 1)  # as a shard does
        assert interval.tolist() == [2, 3]
    text = refusal(Sandblaster(portion=100, warmstart=str(tmp_path / "elsewhere")))
    assert text.startswith("sandblaster.warmstart: ") and "no such file" in text


@pytest.mark.parametrize(
    ("rules", "batch", "stop", "evaluations", "seconds"),
    [
        (StopRules(), None, None, None, None),
        (StopRules(evaluations=9, seconds=5.0), None, None, 9, 5.0),
        (StopRules(evaluations=9, seconds=5.0), None, Stop(epochs=4, seconds=7.0), 4, 5.0),
        (StopRules(), ChangingBatch(fraction=0.2), Stop(epochs=4), 20, None),
    ],
)
def test_the_first_of_all_ends(rules, batch, stop, evaluations, seconds):
    made = job(Sandblaster(portion=45, stop=rules, batch=batch), stop=stop)
    examples = 900 if batch is None else 180
    assert sandblaster.goal(made) == (
        float("inf") if evaluations is None else evaluations * examples,
        float("inf") if seconds is None else seconds,
    )


def test_who_does_what():
    text = "Sandblaster (lbfgs) on 4 ranks: coordinator and 1 shard, 3 replicas, 900 examples in 9 portions"
    assert sandblaster.cast(job(Sandblaster(portion=100)), 4) == text
    assert sandblaster.cast(job(Sandblaster(portion=800)), 1).endswith("on one rank: 900 examples in 2 portions")
