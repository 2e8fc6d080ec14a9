"""Reading ahead in files that are mapped into memory: the system fetches their pages while we compute."""

import mmap

import numpy as np


def advise(array: np.ndarray, rows: np.ndarray) -> None:
    """Tell the system that `rows` (int64, any order) of `array` [n, columns] will be read. Local.

    Each row is contiguous; there may be gaps between them, which are not asked for.

    Nothing happens if the array is not in a mapped file, or the system takes no advice.
    """
    mapped = _mapping(array)
    if mapped is None or not hasattr(mmap, "MADV_WILLNEED") or not len(rows):
        return
    start = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    ascending = np.sort(rows)
    row = array.shape[1] * array.itemsize
    # Neighbours are asked for in one call, unless there is a page or more between them.
    reach = 1 if array.strides[0] < row + mmap.PAGESIZE else 0
    for run in np.split(ascending, np.flatnonzero(np.diff(ascending) > reach) + 1):
        first = start + int(run[0]) * array.strides[0]
        last = start + int(run[-1]) * array.strides[0] + row
        page = first - first % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, page, last - page)


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    """The mapping that `array` is a view of."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None
