import numpy as np
import pytest

from distbelief.data import Batches, dataset_of

SHAPE = (2, 3)  # of one example


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    return dataset_of(rng.integers(0, 256, (50, *SHAPE), dtype=np.uint8), np.arange(50))


def copies(batches):
    return [(batch.x_in.copy(), batch.labels.copy()) for batch in batches]


def order(batches):
    return np.concatenate([batch.labels for batch in batches]).tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stored", [np.uint8, np.float32, np.float64])
def test_a_batch_is_the_scaled_transpose_of_its_rows(data, stored, dtype):
    data = dataset_of(data.inputs.astype(stored), data.labels)
    batches = Batches(data, np.arange(50), 8, seed=1, stream=2, scale=1 / 255, shift=-0.5, dtype=dtype)
    for batch in batches.epoch(3):
        rows = batch.labels  # labels are row numbers here
        assert batch.x_in.dtype == dtype and batch.x_in.flags.c_contiguous and batch.labels.dtype == np.int64
        assert batch.x_in.shape == (6, batch.size)
        expected = (data.source_nf[rows].astype(np.float64) / 255 - 0.5).T
        np.testing.assert_allclose(batch.x_in, expected, rtol=1e-5, atol=1e-6)


def test_images_are_a_view_with_the_batch_last(data):
    batch = next(Batches(data, np.arange(50), 4).in_order())
    images = batch.x_in.reshape(*SHAPE, 4)
    assert np.shares_memory(images, batch.x_in)
    np.testing.assert_array_equal(images[:, :, 3], data.inputs[3])


def test_an_epoch_is_every_index_once_and_the_last_batch_is_what_is_left(data):
    indices = np.arange(1, 50, 3)
    batches = Batches(data, indices, 5)
    assert batches.batches_per_epoch == 4
    assert [batch.size for batch in batches.epoch(0)] == [5, 5, 5, 2]
    assert order(batches.epoch(0)) != indices.tolist() and sorted(order(batches.epoch(0))) == indices.tolist()


@pytest.mark.parametrize(("batch_size", "count"), [(1, 50), (25, 2), (49, 2), (50, 1), (1000, 1)])
def test_batches_per_epoch_is_what_an_epoch_gives(data, batch_size, count):
    batches = Batches(data, np.arange(50), batch_size)
    assert batches.batches_per_epoch == count == len(list(batches.epoch(0))) == len(list(batches.in_order()))


def test_no_indices_are_no_batches(data):
    batches = Batches(data, np.arange(0), 5)
    assert batches.batches_per_epoch == 0 and list(batches.epoch(0)) == list(batches.in_order()) == []


def test_in_order_is_file_order(data):
    assert order(Batches(data, np.array([9, 2, 30, 4]), 3).in_order()) == [2, 4, 9, 30]


def test_an_epoch_depends_on_its_key_alone(data):
    indices = np.arange(50)
    first = Batches(data, indices, 8, seed=1, stream=2)
    list(first.epoch(0))
    again = Batches(data, indices[::-1], 16, seed=1, stream=2)
    assert order(first.epoch(5)) == order(again.epoch(5))
    others = {
        tuple(order(Batches(data, indices, 8, seed=seed, stream=stream).epoch(epoch)))
        for seed in (1, 2)
        for stream in (0, 1)
        for epoch in (0, 1)
    }
    assert len(others) == 8


def test_one_buffer_serves_all_batches_of_an_object(data):
    batches = Batches(data, np.arange(50), 20)
    addresses = {batch.x_in.ctypes.data for batch in [*batches.epoch(0), *batches.in_order()]}
    assert len(addresses) == 1
    other = Batches(data, np.arange(50), 20)
    assert not np.shares_memory(next(batches.in_order()).x_in, next(other.in_order()).x_in)


def test_labels_of_a_batch_outlive_it(data):
    labels = [batch.labels for batch in Batches(data, np.arange(50), 20).in_order()]
    assert np.concatenate(labels).tolist() == list(range(50))


def test_a_mapped_file_gives_the_same_batches_as_memory(tmp_path, data):
    np.save(tmp_path / "x.npy", data.inputs)
    mapped = dataset_of(np.load(tmp_path / "x.npy", mmap_mode="r"), data.labels)
    pairs = zip(
        copies(Batches(data, np.arange(50), 7).epoch(1)),
        copies(Batches(mapped, np.arange(50), 7).epoch(1)),
        strict=True,
    )
    for (x, labels), (mapped_x, mapped_labels) in pairs:
        np.testing.assert_array_equal(x, mapped_x)
        np.testing.assert_array_equal(labels, mapped_labels)


def test_an_index_outside_the_data_is_our_mistake(data):
    with pytest.raises(IndexError):
        list(Batches(data, np.array([50]), 5).in_order())


@pytest.mark.parametrize("stored", [np.uint8, np.float32])
@pytest.mark.parametrize("features", [(0, 2), (1, 5), (5, 6), (0, 6)])
def test_some_features_of_each_example_are_those_of_the_whole(data, stored, features):
    data = dataset_of(data.inputs.astype(stored), data.labels)
    whole, some = (Batches(data, np.arange(50), 8, scale=1 / 255, features=f) for f in (None, features))
    for all_of_it, part in zip(whole.epoch(1), some.epoch(1), strict=True):
        assert part.x_in.flags.c_contiguous
        np.testing.assert_array_equal(part.x_in, all_of_it.x_in[slice(*features)])
        np.testing.assert_array_equal(part.labels, all_of_it.labels)
