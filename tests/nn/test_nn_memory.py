"""The memory of a training step: planned once, not allocated again, and little more than must be."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from distbelief.kernels import use_kernels16
from distbelief.nn import LOSSES, Arena, Network, build
from distbelief.nn.specs import ConvolutionSpec, DenseSpec, LocalSpec, NormaliseSpec, PoolSpec
from distbelief.processor.prepare import OURS


def stage(maps, window, stride, pool):
    return [LocalSpec(maps, window, stride), PoolSpec(pool, 2, "l2"), NormaliseSpec(5)]


# Dean et al. 2012, section 5: the speech network, and an image network of three stages with 83 million parameters.
SPEECH = ([DenseSpec(2560, "sigmoid") for _ in range(4)] + [DenseSpec(8192)], 440)
IMAGES = ([*stage(8, 10, 1, 5), *stage(8, 8, 1, 3), *stage(8, 5, 1, 3), DenseSpec(21_000)], [100, 100, 3])
SMALL = (
    [
        LocalSpec(3, 3, 1, "tanh"),
        PoolSpec(2, 1, "max"),
        NormaliseSpec(3),
        ConvolutionSpec(2, 2),
        PoolSpec(2, 1, "average"),
        DenseSpec(400, "relu"),
        DenseSpec(10),
    ],
    [8, 8, 2],
)
DENSE = ([DenseSpec(40, "sigmoid"), DenseSpec(400, "relu"), DenseSpec(10)], 128)


@pytest.mark.parametrize(
    ("specs_inputs", "batch"),
    [(SPEECH, 32), (SPEECH, 128), (SPEECH, 512), (IMAGES, 32), (IMAGES, 128)],
    ids=["speech-32", "speech-128", "speech-512", "images-32", "images-128"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_that_is_planned_is_little_more_than_parameters_gradients_and_activations(specs_inputs, batch, dtype):
    memory = Network(build(*specs_inputs), batch, dtype).memory  # the arena is not touched: no gigabyte is needed
    needed = memory.parameters + memory.gradients + memory.activations
    assert memory.planned == needed + memory.errors + memory.scratch
    assert needed < memory.planned <= 1.1 * needed


@pytest.mark.parametrize("batch", [32, 128, 512])
def test_parameters_held_in_bfloat16_leave_little_room_for_more(batch):
    """Half the parameters of the above, and what our own kernels read is packed besides."""
    use_kernels16(*OURS)  # where there is no such thing: MKL's or widened products
    try:
        memory = Network(build(*SPEECH), batch, "bfloat16", held="bfloat16").memory
    finally:
        use_kernels16()
    assert memory.planned <= 1.1 * (memory.parameters + memory.gradients + memory.activations)


@pytest.mark.parametrize(("last", "errors"), [("linear", 64), ("tanh", 80)])
def test_the_report_counts_bytes(last, errors):
    """Errors: both at once, but that of a linear layer lies in the place of its outputs."""
    network = Network(build([DenseSpec(64), DenseSpec(16, last)], 48), batch=32)
    parameters = 4 * (48 * 64 + 64 + 64 * 16 + 16)
    scratch = 2 * 8 * 32  # two float64 for each example
    assert network.memory == (parameters, parameters, 4 * 80 * 32, 4 * errors * 32, scratch)


def a_batch(n, features, loss):
    random = np.random.default_rng(n)
    labels = random.standard_normal((10, n)).astype(np.float32) if loss == "squared" else random.integers(0, 10, n)
    return SimpleNamespace(x_in=random.standard_normal((features, n)).astype(np.float32), labels=labels)


def traced(steps):
    """The most bytes that `steps` held at a time, of arrays and of all Python objects."""
    tracemalloc.start()
    try:
        steps()
        snapshot = tracemalloc.take_snapshot()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    arrays = snapshot.filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
    return sum(trace.size for trace in arrays.traces), peak


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("specs_inputs", [SMALL, DENSE], ids=["images", "dense"])
@pytest.mark.parametrize(("dtype", "held"), [("float32", None), ("bfloat16", None), ("bfloat16", "bfloat16")])
def test_a_step_allocates_no_arrays_after_the_first(loss, penalty, specs_inputs, dtype, held):
    """What there may be are views, and about 200 bytes for each array that is given to a kernel while that runs.

    Of arrays of numbers only biases and a few filters would be below the limit: the scratch of a loss is 4096 bytes,
    the outputs 10 kB, in bfloat16 the weights of the last layer 8000 bytes.
    """
    specs, inputs = specs_inputs
    if held:  # convolutions cannot be
        specs = [LocalSpec(2, 2) if isinstance(spec, ConvolutionSpec) else spec for spec in specs]
    network = Network(build(specs, inputs), 256, dtype, LOSSES[loss](), penalty, held)
    parameters, gradient = Arena(network.layout, network.held), Arena(network.layout)
    network.initialise(parameters, 0)
    batches = [a_batch(n, 128, loss) for n in (256, 33)]

    def steps():
        for batch in batches * 2:
            network.gradient(parameters, batch, gradient)
            network.score(parameters, batch)

    steps()
    arrays, peak = traced(steps)
    assert arrays == 0 and peak < 4096


@pytest.mark.parametrize("last", ["linear", "sigmoid"])
def test_arrays_that_live_at_the_same_time_do_not_overlap(last):
    """While layer i goes backwards: the outputs up to its own, two errors, and all scratch that is kept.

    But the error of the outputs of a linear layer is in their place.
    """
    specs, inputs = SMALL
    network = Network(build([*specs[:-1], DenseSpec(10, last)], inputs), 64)
    for n in (1, 33, 64):
        buffers, views = network._buffers, network._buffers.views(n)
        kept = [s for s, layer in zip(buffers.scratch, network.layers, strict=True) if layer.keeps_scratch]
        assert len(kept) == 1
        for i in range(len(network.layers)):
            outputs, errors = views.y[: i + 1], views.dy[max(0, i - 1) : i + 1]
            if last == "linear" and outputs[-1] is views.y[-1]:
                assert outputs.pop().ctypes.data == errors[-1].ctypes.data
            living = [*outputs, *errors, *kept, buffers.loss_scratch]
            for a, first in enumerate(living):
                assert first.flags.c_contiguous and first.ctypes.data % 64 == 0
                assert not any(np.shares_memory(first, second) for second in living[a + 1 :])


def test_smaller_batches_after_larger_ones_and_networks_of_images_learn_alike():
    """Whatever was in the arena before: the same gradient."""
    used, fresh = (Network(build(*SMALL), 64) for _ in range(2))
    parameters = Arena(used.layout)
    used.initialise(parameters, 0)
    first, second = Arena(used.layout), Arena(used.layout)
    used.gradient(parameters, a_batch(64, 128, "softmax"), first)
    batch = a_batch(7, 128, "softmax")
    assert used.gradient(parameters, batch, first) == fresh.gradient(parameters, batch, second)
    np.testing.assert_array_equal(first.flat, second.flat)


@pytest.mark.parametrize("last", ["linear", "tanh"])
@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_gradient_of_a_whole_image_network_is_the_derivative_of_its_loss(loss, penalty, last):
    specs = [LocalSpec(2, 2, 1, "tanh"), PoolSpec(2, 1), NormaliseSpec(3), ConvolutionSpec(2, 2), DenseSpec(10, last)]
    network = Network(build(specs, [6, 5, 1]), 3, np.float64, LOSSES[loss](), penalty)
    parameters, gradient, unused = (Arena(network.layout, float) for _ in range(3))
    network.initialise(parameters, 0)
    batch = a_batch(3, 30, loss)
    batch = SimpleNamespace(
        x_in=batch.x_in.astype(float), labels=batch.labels.astype(np.int64 if loss != "squared" else float)
    )
    found = network.gradient(parameters, batch, gradient)
    weights = sum((parameters[name] ** 2).sum() for name in parameters if name.endswith(".w"))
    assert found == pytest.approx(network.score(parameters, batch)[0] / 3 + penalty / 2 * weights)
    some = np.random.default_rng(5).choice(network.layout.size, 80, replace=False)
    step, differences = 1e-5, []
    for i in some:
        middle, ends = parameters.flat[i], []
        for sign in (1, -1):
            parameters.flat[i] = middle + sign * step
            ends.append(network.gradient(parameters, batch, unused))
        parameters.flat[i] = middle
        differences.append((ends[0] - ends[1]) / (2 * step))
    assert np.linalg.norm(gradient.flat[some] - differences) < 1e-6 * np.linalg.norm(differences)
