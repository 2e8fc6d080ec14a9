"""Examples that come from elsewhere than array files, seen as a run sees them."""

import msgspec
import numpy as np
import pytest

import distbelief.experiment
from distbelief.config import Config
from distbelief.errors import UserError
from distbelief.experiment import Experiment
from distbelief.nn import Arena


def an_experiment(train, inputs, classes=2, **data):
    table = {
        "run": {"folder": "unused"},
        "data": {"train": train, "held_out": 2, "batch": 4} | data,
        "network": {"inputs": inputs, "layers": [{"kind": "dense", "outputs": classes}]},
        "rule": {"kind": "fixed", "rate": 0.1},
        "stop": {"epochs": 1},
    }
    return Experiment(msgspec.convert(table, Config))


@pytest.fixture
def pictures(tmp_path):
    """Of 5 dark nights and 7 bright days."""
    Image = pytest.importorskip("PIL.Image")
    for name, count, brightness in (("day", 7, 200), ("night", 5, 20)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(np.full((9, 7, 3), brightness + i, np.uint8)).save(tmp_path / name / f"{i}.png")
    return {"inputs": str(tmp_path)}


def test_a_folder_of_pictures_is_read_in_batches_of_images(pictures):
    experiment = an_experiment(pictures, [6, 4, 3], scale=0.5)
    seen = []
    for batch in experiment.batches(0, 1).epoch(0):
        assert batch.x_in.shape == (72, batch.size)
        assert (batch.x_in == batch.x_in[0]).all()  # each of one colour
        np.testing.assert_array_equal(batch.labels, batch.x_in[0] < 50)
        seen += batch.x_in[0].tolist()
    assert len(set(seen)) == len(seen) == experiment.training_examples == 10


def test_generated_examples_have_the_networks_shape_and_others_for_the_test():
    experiment = an_experiment({"generated": 30}, [5, 4, 1], classes=3, test={"generated": 30})
    training = next(experiment.batches(0, 1).epoch(0))
    assert training.x_in.shape == (20, 4) and experiment.training_examples == 28
    model = experiment.model()
    parameters, gradient = (Arena(model.layout, model.dtype) for _ in range(2))
    assert np.isfinite(model.gradient(parameters, training, gradient)) and gradient.flat.any()
    assert next(experiment.test()).size == 30


def test_h5_datasets_are_array_files(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"], file["y"] = np.arange(24.0, dtype=np.float32).reshape(8, 3), np.arange(8) % 2
    experiment = an_experiment({"inputs": f"{tmp_path}/data.h5:x", "labels": f"{tmp_path}/data.h5:y"}, 3)
    for batch in experiment.batches(0, 1).epoch(0):
        np.testing.assert_array_equal(batch.labels, batch.x_in[0] // 3 % 2)


def test_what_does_not_fit_is_one_line(pictures, tmp_path):
    with pytest.raises(UserError, match="pictures for a network of inputs = 72, expected inputs = .height, width"):
        an_experiment(pictures, 72)
    (tmp_path / "day").rename(tmp_path / "zenith")
    (tmp_path / "dusk").mkdir()
    (tmp_path / "zenith" / "0.png").rename(tmp_path / "dusk" / "0.png")
    words = r"label 2 at index 6, expected 0 to 1 for the outputs \[2\] of network\.layers\.\d \(dense\)"
    with pytest.raises(UserError, match=words):
        an_experiment(pictures, [6, 4, 3])
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    with pytest.raises(UserError, match="x.npy: inputs without labels, expected labels, or a folder of pictures"):
        an_experiment({"inputs": str(tmp_path / "x.npy")}, 2)


def test_generated_examples_that_there_is_no_memory_for_are_one_line(monkeypatch):
    def wanting(*arguments):
        raise MemoryError

    monkeypatch.setattr(distbelief.experiment, "Generated", wanting)
    with pytest.raises(UserError, match=r"^generated examples: 9 of shape \[3\] in 2 classes: more than there is mem"):
        an_experiment({"generated": 9}, 3)
