import numpy as np
import pytest

from distbelief.data.hdf5 import read_hdf5
from distbelief.errors import UserError

h5py = pytest.importorskip("h5py")


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "speech.h5", "w") as file:
        file["frames"] = np.arange(12.0).reshape(3, 4)
        file.create_dataset("deep/packed", data=np.arange(12).reshape(3, 4), compression="gzip", chunks=(1, 4))
        file["words"] = np.array([b"a", b"b"])
        file["empty"] = np.zeros((0, 3))
    return tmp_path / "speech.h5"


def test_a_plain_dataset_is_mapped_where_it_lies(path):
    array = read_hdf5(f"{path}:frames")
    assert isinstance(array, np.memmap) and not array.flags.writeable
    np.testing.assert_array_equal(array, np.arange(12.0).reshape(3, 4))


def test_a_compressed_dataset_is_read(path):
    array = read_hdf5(f"{path}:deep/packed")
    assert not isinstance(array, np.memmap) and array.dtype == np.int64
    np.testing.assert_array_equal(array, np.arange(12).reshape(3, 4))


def test_the_only_dataset_needs_no_name(tmp_path):
    with h5py.File(tmp_path / "one.hdf5", "w") as file:
        file["group/alone"] = np.ones(5, ">f4")
    np.testing.assert_array_equal(read_hdf5(tmp_path / "one.hdf5"), np.ones(5))
    assert read_hdf5(f"{tmp_path}/one.hdf5:group/alone").dtype == ">f4"


def test_no_examples_are_an_empty_array(path):
    assert read_hdf5(f"{path}:empty").shape == (0, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("speech.h5", "holds deep/packed, empty, frames, words; expected exactly one dataset"),
        ("speech.h5:gone", "has no dataset 'gone'; it holds deep/packed, empty, frames, words"),
        ("speech.h5:deep", "has no dataset 'deep'"),
        ("speech.h5:words", "a dataset of type |S1 and shape (2,); expected an array of numbers"),
        ("gone.h5:frames", "cannot be read"),
        ("torn.h5:frames", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(path, name, words):
    (path.parent / "torn.h5").write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError) as error:
        read_hdf5(path.parent / name)
    assert words in str(error.value) and "\n" not in str(error.value)
