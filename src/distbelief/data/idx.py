"""IDX files, the format of MNIST and its relatives, plain or compressed with gzip.

A file is: two zero bytes, one byte for the element type, one for the number of dimensions, then each dimension
as a big-endian uint32, then the elements, big-endian, last axis fastest. Nothing follows them.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from distbelief.errors import UserError

ELEMENT_TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
GZIP_MAGIC = b"\x1f\x8b"

# NumPy 1.26 knows no more dimensions than this.
_MOST_DIMENSIONS = 32
# Deflate spends at least two bits on 258 bytes, so no gzip file expands further than this.
_LARGEST_EXPANSION = 1032


class _Header(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def payload(self) -> int:
        """Bytes that the elements take."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes of the header itself, that is, where the elements start."""
        return 4 + 4 * len(self.shape)

    def __str__(self) -> str:
        return f"{self.size + self.payload} bytes for {self.dtype.name} elements of shape {list(self.shape)}"


def read_idx(path: str | Path) -> np.ndarray:
    """Read one IDX file as a read-only array of its own shape and element type.

    A plain file is memory-mapped and costs no memory until read; types of several bytes stay big-endian (`>i2`,
    `>i4`, `>f4`, `>f8`). A gzip file, told by its first bytes and not by its name, is decompressed into memory.

    Local. Raises UserError if the file is missing, truncated, longer than its header says, not IDX, or damaged gzip.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            return _decompress(path, file) if compressed else _map(path, file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); expected an IDX file") from None


def _map(path: str | Path, file: BinaryIO) -> np.ndarray:
    """Map a plain file, once its size is exactly what its header promises."""
    header = _read_header(path, file)
    found = os.fstat(file.fileno()).st_size
    if found != header.size + header.payload:
        raise UserError(f"{path}: {_too(found, header)}: found {found} bytes, expected {header}")
    return np.memmap(file, dtype=header.dtype, mode="r", offset=header.size, shape=header.shape)


def _decompress(path: str | Path, file: BinaryIO) -> np.ndarray:
    """Decompress straight into the array that is returned, so that the data is never in memory twice."""
    try:
        with gzip.open(file) as stream:
            header = _read_header(path, stream)
            compressed = os.fstat(file.fileno()).st_size
            # Checked before allocating: a damaged header may well ask for terabytes.
            if header.payload > _LARGEST_EXPANSION * compressed:
                raise UserError(f"{path}: truncated: found {compressed} compressed bytes, expected {header}")
            array = np.empty(header.shape, header.dtype)
            space = memoryview(array.reshape(-1).view(np.uint8))
            filled = 0
            while filled < len(space) and (count := stream.readinto(space[filled:])):
                filled += count
            # Reading on to the end is also what makes gzip compare its checksum.
            found = header.size + filled + len(stream.read(1))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip ({error}); expected a whole gzip file with IDX inside") from None
    if found != header.size + header.payload:
        amount = f"more than {found - 1}" if found > header.size + header.payload else f"{found}"
        raise UserError(f"{path}: {_too(found, header)}: found {amount} bytes after decompression, expected {header}")
    array.flags.writeable = False  # as the mapped ones are
    return array


def _read_header(path: str | Path, stream: BinaryIO) -> _Header:
    magic = stream.read(4)
    if len(magic) < 4:
        raise UserError(f"{path}: not an IDX file: found {len(magic)} bytes, expected at least a header of 8")
    zeros, code, dimensions = magic[:2], magic[2], magic[3]
    if zeros != b"\x00\x00" or code not in ELEMENT_TYPES or not 1 <= dimensions <= _MOST_DIMENSIONS:
        known = ", ".join(f"{known:02x}" for known in ELEMENT_TYPES)
        raise UserError(
            f"{path}: not an IDX file: it starts with bytes {magic.hex(' ')}, expected 00 00, "
            f"an element type ({known}), and 1 to {_MOST_DIMENSIONS} dimensions"
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise UserError(
            f"{path}: truncated: found {4 + len(sizes)} bytes, expected a header of {4 + 4 * dimensions} "
            f"for {dimensions} dimensions"
        )
    return _Header(ELEMENT_TYPES[code], struct.unpack(f">{dimensions}I", sizes))


def _too(found: int, header: _Header) -> str:
    return "truncated" if found < header.size + header.payload else "bytes after the last element"
