"""One door to every array file that can be read."""

from pathlib import Path

import numpy as np

from distbelief.data.hdf5 import HDF5_MAGIC, read_hdf5, split_dataset
from distbelief.data.idx import read_idx
from distbelief.data.numpy_files import NPY_MAGIC, ZIP_MAGICS, read_npy, read_npz, split_member
from distbelief.errors import UserError


def read_array(path: str | Path) -> np.ndarray:
    """Read the array in a file: `.npy`, `.npz` (`file.npz:member`), HDF5 (`file.h5:dataset`), or IDX, plain or gzip.

    The first bytes of the file decide, and the name only if they say nothing. Plain IDX, `.npy` and HDF5 in one piece
    are memory-mapped read-only; the others are read into memory. Shape and dtype are those of the file.

    Local. Raises UserError if the file is missing, damaged or none of these.
    """
    file, member = split_member(path)
    if member is None:
        file, dataset = split_dataset(path)
    try:
        with open(file, "rb") as stream:
            start = stream.read(max(map(len, (NPY_MAGIC, HDF5_MAGIC, *ZIP_MAGICS))))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}); expected an array file") from None
    suffix = Path(file).suffix
    if member is not None or start.startswith(ZIP_MAGICS):
        return read_npz(path)
    if start.startswith(HDF5_MAGIC) or dataset is not None:
        return read_hdf5(path)
    if start.startswith(NPY_MAGIC):
        return read_npy(path)
    # Neither: a damaged file is best described as what its name says it should be.
    return {".npz": read_npz, ".npy": read_npy}.get(suffix, read_idx)(path)
