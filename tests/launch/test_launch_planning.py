"""`distbelief plan`: what it prints, and what it refuses."""

from pathlib import Path

import pytest

from distbelief.errors import UserError
from distbelief.launch.planning import plan

EXAMPLES = Path(__file__).parents[2] / "examples"


def planned(name, partitions=None, settings=(), gflops=60.0, gbits=10.0, latency=20e-6):
    return plan(EXAMPLES / f"{name}.toml", list(settings), partitions, gflops, gbits, latency)


def test_the_speech_network_in_two():
    lines = planned("speech")
    assert lines[0] == "41,777,152 parameters in 5 layers, minibatches of 128 examples, 2 partitions"
    half = 41_777_152 // 2
    assert lines[3].split()[:3] == ["0", f"{half:,}", f"{(half - 9216) * 128:,}"]  # no biases
    # 1280 numbers of 4 bytes for 128 examples, four times.
    assert lines[3].split()[-4:] == ["2.62", "MB", "2.62", "MB"]
    assert "1.9" in lines[-1] and "2 partitions" not in lines[-1]


def test_an_image_network_in_two():
    lines = planned("imagenet_80m")
    (local,) = (line.split() for line in lines if line.split()[:1] == ["local0"])
    # Rows of pooling, 42 each, look at rows 0..48 and 42..90, of which the partitions have 0..45 and 46..90.
    assert local == ["local0", "91", "45", "to", "46", f"{(3 + 4) * 91 * 8 * 16 * 4 / 1000:.0f}", "kB"]
    (first, second) = (line.split() for line in lines[3:5])
    assert int(first[1].replace(",", "")) + int(second[1].replace(",", "")) == 82_512_896


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("imagenet", 1_706_721_312), ("imagenet_330m", 331_225_976), ("imagenet_80m", 82_512_896)],
)
def test_the_image_networks_have_the_papers_sizes(name, parameters):
    assert planned(name, 4)[0].startswith(f"{parameters:,} parameters")


def test_too_many_partitions_are_refused_with_the_layer():
    with pytest.raises(UserError, match="6 partitions of layer pool7: it has 5 rows"):
        planned("imagenet_80m", 6)


@pytest.mark.parametrize("numbers", [dict(partitions=-1), dict(gflops=0.0), dict(gbits=-1.0), dict(latency=-1.0)])
def test_impossible_machines_are_refused(numbers):
    with pytest.raises(UserError, match="plan: expected"):
        planned("speech", **numbers)
