"""Networks of images in configurations: layers that do not fit are named with both shapes."""

import pytest
from config.small import fault

from distbelief.config import dump, load

IMAGES = "network.inputs=[8, 8, 1]"
STAGE = (
    "network.layers=[{kind='local', maps=4, window=3}, {kind='pool', window=[2, 2], stride=1}, "
    "{kind='normalise', window=3}, {kind='convolution', maps=2, window=[2, 1], stride=2, activation='relu'}, "
    "{kind='dense', outputs=10}]"
)


def test_a_network_of_images(path, tmp_path):
    config = load(path, [IMAGES, STAGE, "network.loss=logistic", "network.penalty=1e-4"])
    local, pool, normalise, convolution, dense = config.network.layers
    assert (local.maps, local.window, local.stride, local.activation) == (4, 3, 1, "linear")
    assert (pool.window, pool.stride, pool.function) == ([2, 2], 1, "l2")
    assert (normalise.window, normalise.floor) == (3, 0.01)
    assert (convolution.window, convolution.stride) == ([2, 1], 2)
    assert (config.network.loss, config.network.penalty) == ("logistic", 1e-4)
    (tmp_path / "copy.toml").write_text(dump(config))
    assert load(tmp_path / "copy.toml") == config


WRONG_IMAGES = [
    ("network.inputs=[8, 8]", "network.inputs: expected list of length >= 3, found [8, 8]"),
    ("network.inputs=[8, 8, 0]", "network.inputs.2: expected int >= 1, found 0"),
    ("network.layers.0.window=[3]", "network.layers.0.window: expected list of length >= 2, found [3]"),
    ("network.layers.0.window=[3, 0]", "network.layers.0.window.1: expected int >= 1, found 0"),
    ("network.layers.0.window=0", "network.layers.0.window: expected int >= 1, found 0"),
    (
        "network.layers.0.window=[3, 3, 3]",
        "network.layers.0.window: expected list of length <= 2, found [3, 3, 3]",
    ),
    (
        "network.layers.0.maps=100000000000",
        "network.layers.0 (local): local0.w of shape [6, 6, 100000000000, 3, 3, 1], expected at most 2^44 numbers",
    ),
    ("network.layers.1.stride=0", "network.layers.1.stride: expected int >= 1, found 0"),
    ("network.layers.1.stride=-1", "network.layers.1.stride: expected int >= 1, found -1"),
    ("network.layers.0.stride=0", "network.layers.0.stride: expected int >= 1, found 0"),
    ("network.layers.1.function=l1", "network.layers.1.function: expected one of: l2, max, average, found 'l1'"),
    ("network.layers.2.floor=0", "network.layers.2.floor: expected float > 0.0, found 0"),
    (
        "network.layers.2.kind=lcn",
        "network.layers.2.kind: expected one of: dense, local, convolution, pool, normalise, found 'lcn'",
    ),
    ("network.layers.1.maps=3", "network.layers.1.maps: unknown key, expected one of: kind, window, stride, function"),
    ("network.penalty=-1", "network.penalty: expected float >= 0.0, found -1"),
    (
        "network.layers.0.window=9",
        "network.layers.0 (local): a window of [9, 9] does not fit into the [8, 8, 1] below",
    ),
    ("network.layers.1.window=7", "network.layers.1 (pool): a window of [7, 7] does not fit into the [6, 6, 4] below"),
    (
        "network.layers.3.stride=6",
        "network.layers.3 (convolution): a stride of 6 leaves nothing of the [5, 5, 4] below beside a window of [2, 1]",
    ),
    (
        "network.layers.2.window=2",
        "network.layers.2 (normalise): a window of [2, 2] has no middle, expected odd numbers",
    ),
    (
        "network.layers.1={kind='pool', window=[2, 1]}",
        "network.layers.1 (pool): a window of [2, 1] needs a stride",
    ),
    ("network.inputs=64", "network.layers.0 (local): takes an image [H, W, C], found [64] below"),
    (
        "network.layers.0={kind='dense', outputs=64}",
        "network.layers.1 (pool): takes an image [H, W, C], found [64] below",
    ),
    (
        "network.layers.4.outputs=1",
        "network.layers.4 (dense): outputs of shape [1] under a loss over classes, expected [classes] with 2 or more",
    ),
]


@pytest.mark.parametrize(("setting", "text"), WRONG_IMAGES, ids=[setting for setting, _ in WRONG_IMAGES])
def test_layers_that_do_not_fit_are_named_with_both_shapes(path, setting, text):
    assert fault(path, IMAGES, STAGE, setting).startswith(text)


def test_a_squared_error_takes_a_single_output(path):
    assert load(path, ["network.loss=squared", "network.layers.1.outputs=1"]).network.loss == "squared"
