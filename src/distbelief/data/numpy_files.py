"""NumPy's own files: `.npy`, memory-mapped, and members of `.npz`, read into memory."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from distbelief.errors import UserError

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # the second one starts a zip file without members

_MEMBER_MARK = ".npz:"


def split_member(path: str | Path) -> tuple[str, str | None]:
    """Cut `file.npz:member` into file and member; the member of any other path is None.

    A file that really has such a name wins. Local.
    """
    text = str(path)
    if _MEMBER_MARK not in text or Path(text).exists():
        return text, None
    folder_and_stem, member = text.split(_MEMBER_MARK, 1)
    return folder_and_stem + ".npz", member


def read_npy(path: str | Path) -> np.ndarray:
    """Map one `.npy` file read-only, with the shape, type and memory order it was saved with.

    Local. Raises UserError if the file is missing, not `.npy`, truncated, longer than one array, or of Python objects.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        found = Path(path).stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); expected a .npy file") from None
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path}: not a usable .npy file ({_line(error)}); expected one whole array of numbers"
        ) from None
    expected = array.offset + array.nbytes
    if found != expected:
        raise UserError(
            f"{path}: bytes after the last element: found {found} bytes, "
            f"expected {expected} for {array.dtype.name} elements of shape {list(array.shape)}"
        )
    return array


def read_npz(path: str | Path) -> np.ndarray:
    """Read one member of an `.npz` file into memory: `file.npz:member`, or `file.npz` if it holds one array only.

    Local. Raises UserError if the file is missing or damaged, the member is not in it, is left open among several,
    or is not an array of plain numbers.
    """
    file, member = split_member(path)
    try:
        with open(file, "rb") as stream, zipfile.ZipFile(stream):
            # NumPy takes a file that is not a zip for a pickle and says so; opening it first gives the true reason.
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as members:
                array = members[_choose(file, member, members.files)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); expected an .npz file") from None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: not a usable .npz member ({_line(error)}); expected an array of numbers") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: the member is not an array; expected one saved by numpy.savez")
    return array


def _choose(file: str, member: str | None, members: list[str]) -> str:
    if member in members:
        return member
    there = ", ".join(members) or "no arrays"
    if member is not None:
        raise UserError(f"{file}: has no member {member!r}; it holds {there}")
    if len(members) != 1:
        raise UserError(f"{file}: holds {there}; expected exactly one array, or a path {file}:MEMBER that names one")
    return members[0]


def _line(error: Exception) -> str:
    """The text of someone else's error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
