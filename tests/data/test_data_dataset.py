import numpy as np
import pytest

from distbelief.data import dataset_of, open_dataset
from distbelief.errors import UserError


def write(folder, inputs, labels):
    np.save(folder / "x.npy", inputs)
    np.save(folder / "y.npy", labels)
    return folder / "x.npy", folder / "y.npy"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_usable_inputs_stay_mapped(tmp_path, dtype):
    inputs = np.arange(24).astype(dtype).reshape(4, 2, 3)
    data = open_dataset(*write(tmp_path, inputs, np.arange(4)))
    assert np.shares_memory(data.source_nf, data.inputs)
    assert not data.inputs.flags.writeable  # as a copy would be
    assert data.inputs.dtype == dtype and data.examples == 4 and data.features == 6
    np.testing.assert_array_equal(data.source_nf, inputs.reshape(4, 6))


@pytest.mark.parametrize("dtype", ["?", "i1", "<i2", ">i2", ">i4", "u8", "f2", ">f4", ">f8"])
def test_other_real_inputs_become_float32(dtype):
    inputs = np.arange(12).reshape(3, 4).astype(dtype)
    data = dataset_of(inputs, np.zeros(3, int))
    assert data.inputs.dtype == np.float32 and data.inputs.dtype.isnative
    np.testing.assert_array_equal(data.inputs, inputs.astype(np.float32))


def test_fortran_order_becomes_c_order(tmp_path):
    inputs = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    data = open_dataset(*write(tmp_path, inputs, np.zeros(3, int)))
    assert data.source_nf.flags.c_contiguous
    np.testing.assert_array_equal(data.source_nf, inputs)


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", ">i2", "i8", "u8", "f4", ">f8"])
def test_labels_become_int64_in_memory(tmp_path, dtype):
    labels = np.array([1, 0, 1]).astype(dtype)
    data = open_dataset(*write(tmp_path, np.zeros((3, 2)), labels))
    assert type(data.labels) is np.ndarray and data.labels.dtype == np.int64 and data.labels.dtype.isnative
    assert data.labels.flags.owndata and data.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0.0, 1.5], "label 1.5 at index 1"),
        ([np.nan, 1.0], "label nan at index 0"),
        ([0.0, -np.inf], "label -inf at index 1"),
        ([0.0, 2.0**63], "label 9.2"),
        (np.array([0, 2**63], np.uint64), "label 9223372036854775808 at index 1"),
    ],
)
def test_labels_that_are_not_whole_are_refused(labels, found):
    with pytest.raises(UserError, match=f"y: {found}.*expected a whole number"):
        dataset_of(np.zeros((2, 1)), np.asarray(labels), "x", "y")


@pytest.mark.parametrize(
    ("inputs", "labels", "text"),
    [
        (np.zeros((3, 2)), np.zeros(4, int), "X has 3 examples and Y has 4 labels"),
        (np.zeros(3), np.zeros(3, int), r"X: inputs have shape \[3\]"),
        (np.zeros((3, 2)), np.zeros((3, 1), int), r"Y: labels have shape \[3, 1\]"),
        (np.zeros((0, 2)), np.zeros(0, int), r"X: inputs have shape \[0, 2\]"),
        (np.zeros((3, 0)), np.zeros(3, int), r"X: inputs have shape \[3, 0\]"),
        (np.zeros((1, 2), complex), np.zeros(1, int), "X: elements of type complex128"),
        (np.zeros((1, 2)), np.array(["a"]), "Y: elements of type <U1"),
        (np.zeros((1, 2), "M8[s]"), np.zeros(1, int), "X: elements of type datetime64"),
    ],
)
def test_arrays_that_do_not_make_a_dataset_are_refused(tmp_path, inputs, labels, text):
    x, y = write(tmp_path, inputs, labels)
    with pytest.raises(UserError, match=text.replace("X", str(x)).replace("Y", str(y))) as caught:
        open_dataset(x, y)
    assert "expected" in str(caught.value) and "\n" not in str(caught.value)


def test_check_compares_with_the_network():
    data = dataset_of(np.zeros((5, 2, 3)), np.array([0, 1, 3, -1, 9]), "x.npy", "y.npy")
    with pytest.raises(
        UserError, match=r"x\.npy: an example has 6 numbers \(shape \[2, 3\]\), expected 7 \(shape \[7\]\)"
    ):
        data.check((7,), (10,), "the last layer")
    with pytest.raises(UserError, match=r"y\.npy: label 3 at index 2, expected 0 to 2 for .* \[3\] of the last layer$"):
        data.check((6,), (3,), "the last layer")
    with pytest.raises(UserError, match=r"y\.npy: label -1 at index 3, expected 0 to 9 for .* \[2, 1, 5\] of the last"):
        data.check((6,), (2, 1, 5), "the last layer")


def test_check_accepts_every_class_of_the_network():
    dataset_of(np.zeros((3, 2)), np.array([0, 1, 2])).check((2,), (3,), "the last layer")
