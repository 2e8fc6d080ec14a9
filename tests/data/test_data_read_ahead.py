"""Reading ahead: which bytes of a mapped file the system is told of."""

import mmap

import numpy as np
import pytest

from distbelief.data import Batches, dataset_of
from distbelief.data.read_ahead import advise

ROW = 3000


class Spy(mmap.mmap):
    """A mapping that remembers what it was advised."""

    def madvise(self, option, start=0, length=None):
        self.__dict__.setdefault("advice", []).append((start, start + length))
        assert option == mmap.MADV_WILLNEED
        return super().madvise(option, start, length)


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "inputs"
    path.write_bytes(bytes(200 * ROW + 16))
    with open(path, "rb") as file:
        return Spy(file.fileno(), 0, access=mmap.ACCESS_READ)


def rows_of(mapped, offset: int = 16) -> np.ndarray:
    return np.frombuffer(mapped, np.uint8, offset=offset).reshape(200, ROW)


def test_neighbours_are_asked_for_at_once_from_a_page_on(mapped):
    advise(rows_of(mapped), np.array([12, 10, 50, 11]))
    assert len(mapped.advice) == 2
    for (start, stop), (first, last) in zip(mapped.advice, [(10, 13), (50, 51)], strict=True):
        assert start % mmap.PAGESIZE == 0
        assert start <= 16 + first * ROW < start + mmap.PAGESIZE
        assert stop == 16 + last * ROW


def test_what_lies_between_some_columns_of_neighbours_is_not_asked_for(tmp_path):
    path, row = tmp_path / "wide", 4 * mmap.PAGESIZE
    path.write_bytes(bytes(20 * row))
    with open(path, "rb") as file:
        mapped = Spy(file.fileno(), 0, access=mmap.ACCESS_READ)
    rows = np.frombuffer(mapped, np.uint8).reshape(20, row)
    advise(rows[:, 100:200], np.array([3, 2, 3]))
    assert mapped.advice == [(2 * row, 2 * row + 200), (3 * row, 3 * row + 200)]
    mapped.advice.clear()
    advise(rows[:, 10 : row - 10], np.array([3, 2, 3]))
    assert mapped.advice == [(2 * row, 4 * row - 10)]


def test_the_readers_of_a_mapped_file_ask(mapped):
    batches = Batches(dataset_of(rows_of(mapped), np.zeros(200, int)), np.arange(100, 200), 10)
    batches.read_ahead(np.arange(5))
    (advice,) = mapped.advice
    assert advice[1] == 16 + 105 * ROW
    (batch,) = batches.read(np.array([3, 1]))
    assert batch.size == 2


def test_what_is_in_memory_needs_no_reading():
    advise(np.zeros((5, 4)), np.arange(5))
    advise(np.zeros((5, 4))[1:], np.array([], int))
