import gzip
import zipfile

import numpy as np
import pytest

from distbelief.data import read_array, read_idx, read_npy, read_npz
from distbelief.errors import UserError

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def refused(read, path, *fragments):
    with pytest.raises(UserError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    for fragment in fragments:
        assert fragment in text


@pytest.fixture
def npy(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, ARRAY)
    return path


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez(path, x=ARRAY, y=ARRAY[0])
    return path


def test_npy_is_mapped_read_only(npy):
    array = read_npy(npy)
    assert isinstance(array, np.memmap) and not array.flags.writeable
    np.testing.assert_array_equal(array, ARRAY)


def test_npz_member_by_name(npz):
    np.testing.assert_array_equal(read_npz(f"{npz}:x"), ARRAY)
    np.testing.assert_array_equal(read_npz(f"{npz}:y"), ARRAY[0])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_single_member_needs_no_name(tmp_path, save):
    save(tmp_path / "one.npz", only=ARRAY)
    np.testing.assert_array_equal(read_npz(tmp_path / "one.npz"), ARRAY)


def test_npz_member_absent_or_ambiguous(npz):
    refused(read_npz, f"{npz}:z", "no member 'z'", "x, y")
    refused(read_npz, npz, "holds x, y", "exactly one array")


def test_npz_without_members(tmp_path):
    path = tmp_path / "empty.npz"
    zipfile.ZipFile(path, "w").close()
    refused(read_array, path, "no arrays")


def test_npz_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("note", "hello")
    refused(read_npz, tmp_path / "text.npz", "not an array")


def test_python_objects_are_refused(tmp_path):
    objects = np.array([{"a": 1}, None])
    np.save(tmp_path / "objects.npy", objects)
    np.savez(tmp_path / "objects.npz", objects)
    refused(read_npy, tmp_path / "objects.npy", "objects.npy", "expected one whole array of numbers")
    refused(read_npz, tmp_path / "objects.npz", "objects.npz", "expected an array of numbers")


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_truncated_files_are_refused(npy, npz, keep):
    for path, read in (npy, read_npy), (npz, read_npz):
        path.write_bytes(path.read_bytes()[:keep])
        refused(read, path, str(path), "expected")
        refused(read_array, path, str(path), "expected")


def test_npy_with_more_than_one_array_is_refused(npy):
    with open(npy, "ab") as file:
        np.save(file, ARRAY)
    refused(read_npy, npy, "bytes after the last element", "expected 176 for float32 elements of shape [3, 4]")


def test_damaged_npz_member_is_refused(npz):
    content = bytearray(npz.read_bytes())
    content[content.index(ARRAY.tobytes()) + 8] ^= 1
    npz.write_bytes(content)
    refused(read_npz, f"{npz}:x", "CRC")


@pytest.mark.parametrize("name", ["absent.npy", "absent.npz", "absent.npz:x", "absent"])
def test_missing_files_are_refused(tmp_path, name):
    refused(read_array, tmp_path / name, str(tmp_path / "absent"), "No such file")


def test_read_array_goes_by_content_before_name(tmp_path, npy, npz):
    idx = b"\x00\x00\x08\x01\x00\x00\x00\x03abc"
    (tmp_path / "a.bin").write_bytes(npy.read_bytes())
    (tmp_path / "b.bin").write_bytes(idx)
    (tmp_path / "b.gz").write_bytes(gzip.compress(idx))
    np.testing.assert_array_equal(read_array(tmp_path / "a.bin"), ARRAY)
    np.testing.assert_array_equal(read_array(str(npy)), ARRAY)
    np.testing.assert_array_equal(read_array(f"{npz}:y"), ARRAY[0])
    for name in "b.bin", "b.gz":
        np.testing.assert_array_equal(read_array(tmp_path / name), [97, 98, 99])
        np.testing.assert_array_equal(read_idx(tmp_path / name), [97, 98, 99])


def test_read_array_describes_bad_content_by_the_name(tmp_path):
    for name, kind in ("a.npy", ".npy"), ("a.npz", ".npz"), ("a.idx", "IDX"):
        (tmp_path / name).write_bytes(b"hello world")
        refused(read_array, tmp_path / name, name, kind)


def test_a_file_named_like_a_member_wins(tmp_path, npy):
    odd = tmp_path / "odd.npz:x"
    odd.write_bytes(npy.read_bytes())
    np.testing.assert_array_equal(read_array(odd), ARRAY)
