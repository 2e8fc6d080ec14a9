"""HDF5 datasets, as `file.h5:path/to/dataset`. h5py, the extra `hdf5`, is imported when one is opened."""

from pathlib import Path
from typing import Any

import numpy as np

from distbelief.errors import UserError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_MARKS = (".h5:", ".hdf5:")


def split_dataset(path: str | Path) -> tuple[str, str | None]:
    """Cut `file.h5:dataset` into file and dataset; the dataset of any other path is None.

    A file that really has such a name wins. Local.
    """
    text = str(path)
    mark = next((mark for mark in _MARKS if mark in text), None)
    if mark is None or Path(text).exists():
        return text, None
    file, dataset = text.split(mark, 1)
    return file + mark[:-1], dataset


def read_hdf5(path: str | Path) -> np.ndarray:
    """Open one dataset of an HDF5 file: `file.h5:dataset`, or `file.h5` if it holds one only.

    A dataset that lies in one piece and is not compressed is memory-mapped read-only and costs no memory until read;
    any other is read into memory.

    Local. Raises UserError if h5py or the file is missing, the file is damaged, the dataset is not in it, is left open
    among several, or does not hold numbers.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: HDF5 needs h5py, expected it installed: pip install 'distbelief[hdf5]'") from None
    file, name = split_dataset(path)
    try:
        with h5py.File(file, "r") as opened:
            dataset = _choose(file, name, opened, h5py.Dataset)
            if dataset.dtype.kind not in "buif" or not dataset.shape:
                raise UserError(
                    f"{path}: a dataset of type {dataset.dtype} and shape {dataset.shape}; expected an array of numbers"
                )
            offset = dataset.id.get_offset()  # None unless it lies in one piece, as it is
            if offset is None or dataset.size == 0:
                return dataset[...]
            shape, dtype = dataset.shape, dataset.dtype
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({_line(error)}); expected an HDF5 file") from None
    return np.memmap(file, dtype, "r", offset, shape)


def _choose(file: str, name: str | None, opened: Any, kind: type) -> Any:
    if name is not None and isinstance(opened.get(name), kind):
        return opened[name]
    found: list[str] = []
    opened.visititems(lambda here, item: found.append(here) if isinstance(item, kind) else None)
    there = ", ".join(found) or "no datasets"
    if name is not None:
        raise UserError(f"{file}: has no dataset {name!r}; it holds {there}")
    if len(found) != 1:
        raise UserError(f"{file}: holds {there}; expected exactly one dataset, or a path {file}:DATASET that names one")
    return opened[found[0]]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
