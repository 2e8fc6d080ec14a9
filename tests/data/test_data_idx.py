import gzip
import struct

import numpy as np
import pytest

from distbelief.data import read_idx
from distbelief.data.idx import ELEMENT_TYPES
from distbelief.errors import UserError


def idx_bytes(array, code):
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(ELEMENT_TYPES[code]).tobytes()


IMAGES = np.arange(24).reshape(2, 3, 4)
WHOLE = idx_bytes(IMAGES, 0x08)


def refused(path):
    with pytest.raises(UserError) as caught:
        read_idx(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: ") and "expected" in text
    return text


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("code", ELEMENT_TYPES)
@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (0, 3)])
def test_every_element_type_comes_back_as_written(tmp_path, code, shape, compressed):
    low = 0 if code == 0x08 else -100
    values = np.arange(low, low + np.prod(shape), dtype=np.int64).reshape(shape)
    content = idx_bytes(values, code)
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(content) if compressed else content)
    array = read_idx(path)
    assert array.dtype == ELEMENT_TYPES[code] and array.shape == shape
    np.testing.assert_array_equal(array, values)
    assert not array.flags.writeable
    assert isinstance(array, np.memmap) != compressed


def test_bytes_are_big_endian_and_the_last_axis_is_fastest(tmp_path):
    path = tmp_path / "array"
    path.write_bytes(bytes.fromhex("00000b02 00000001 00000002 0102 ff00"))
    np.testing.assert_array_equal(read_idx(path), [[0x0102, -256]])


def test_gzip_in_several_members_is_one_file(tmp_path):
    path = tmp_path / "array.gz"
    path.write_bytes(gzip.compress(WHOLE[:20]) + gzip.compress(WHOLE[20:]))
    np.testing.assert_array_equal(read_idx(path), IMAGES)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not an IDX file: found 0 bytes"),
        (WHOLE[:3], "not an IDX file: found 3 bytes"),
        (WHOLE[:9], "truncated: found 9 bytes, expected a header of 16 for 3 dimensions"),
        (WHOLE[:-1], "truncated: found 39 bytes"),
        (WHOLE[:16], "truncated: found 16 bytes"),
        (WHOLE + b"x", "bytes after the last element: found"),
        (b"\x00\x00\x0a" + WHOLE[3:], "starts with bytes 00 00 0a 03"),
        (b"\x01\x00\x08" + WHOLE[3:], "starts with bytes 01 00 08 03"),
        (b"\x00\x00\x08\x00", "starts with bytes 00 00 08 00"),
        (b"\x00\x00\x08\x21" + bytes(4 * 33), "starts with bytes 00 00 08 21"),
        (b"<!DOCTYPE html>", "starts with bytes 3c 21 44 4f"),
    ],
)
def test_bad_content_is_refused(tmp_path, content, expected, pack):
    path = tmp_path / "array"
    path.write_bytes(pack(content))
    assert expected in refused(path)


def test_sizes_are_those_of_the_header(tmp_path):
    path = tmp_path / "array"
    path.write_bytes(WHOLE[:-1])
    assert "expected 40 bytes for uint8 elements of shape [2, 3, 4]" in refused(path)


def test_a_header_that_asks_for_terabytes_allocates_nothing(tmp_path):
    path = tmp_path / "array.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 0x0E, 3, 2**32 - 1, 2**32 - 1, 1)))
    assert "truncated: found" in refused(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-10],  # the end, with the checksum, is missing
        lambda packed: packed[:12],
        lambda packed: packed[:-8] + b"\0\0\0\0" + packed[-4:],  # wrong checksum
        lambda packed: packed[:10] + b"\xff" * 8 + packed[18:],  # not deflate
        lambda packed: packed + b"garbage",
    ],
)
def test_damaged_gzip_is_refused(tmp_path, damage):
    path = tmp_path / "array.gz"
    path.write_bytes(damage(gzip.compress(WHOLE)))
    assert "damaged gzip" in refused(path)


def test_missing_file_and_directory_are_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "absent")
    assert "directory" in refused(tmp_path)
