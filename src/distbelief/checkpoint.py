"""Parameters in files: safetensors under logical tensor names, whatever the number of ranks that made them."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from distbelief.errors import UserError
from distbelief.nn.arena import Arena, Layout


def save(path: str | Path, parameters: Arena) -> None:
    """Write `parameters` to `path`, whole or not at all. Local. Raises UserError if the file cannot be written."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # what the user's umask makes of it; safetensors would hide it from the group
        safetensors.numpy.save_file({name: parameters[name] for name in parameters}, partial)
        partial.chmod(mode)
        os.replace(partial, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


class Writer:
    """Writes parameters piece by piece, for a network that no rank holds as a whole (algorithms.keeper.Keeper). Local.

    The file is the one that `save` writes, but for the order of its tensors; it takes its name at the `end`.
    """

    parameters = None  # not in memory

    def __init__(self, path: str | Path, layout: Layout, dtype: np.dtype | type):
        self._path = Path(path)
        self._dtype = np.dtype(dtype)
        kind = {4: "F32", 8: "F64"}[self._dtype.itemsize]
        size = self._dtype.itemsize
        header = json.dumps(
            {
                tensor.name: {
                    "dtype": kind,
                    "shape": tensor.shape,
                    "data_offsets": [tensor.start * size, tensor.stop * size],
                }
                for tensor in layout.tensors
            }
        ).encode()
        header += b" " * (-len(header) % 8)
        # The format of safetensors: the length of the header, the header, the tensors without gaps.
        self._head = len(header).to_bytes(8, "little") + header
        self._nbytes = len(self._head) + layout.size * size
        self._file = None

    @property
    def _partial(self) -> Path:
        return self._path.with_name(f".{self._path.name}.partial")

    def begin(self) -> None:
        """Begin a new file. Raises UserError if it cannot be written."""
        with self._telling():
            self._file = open(self._partial, "wb")
            self._file.write(self._head)

    def add(self, start: int, values: np.ndarray) -> None:
        """Elements start..start+size-1 of the flat vector, in any order."""
        with self._telling():
            self._file.seek(len(self._head) + start * self._dtype.itemsize)
            self._file.write(values.data)

    def end(self) -> None:
        """Everything has been added."""
        with self._telling():
            self._file.close()
            assert self._partial.stat().st_size == self._nbytes, "a part of the parameters was not added"
            os.replace(self._partial, self._path)

    @contextlib.contextmanager
    def _telling(self):
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written: {error}") from error


def load(path: str | Path, layout: Layout, dtype: np.dtype | type = np.float32) -> Arena:
    """Read parameters of `layout` from `path`. Local.

    Raises UserError if the file is missing or broken, or its tensors are not those of the layout.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file, expected parameters in safetensors format")
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:  # types that NumPy does not have
        raise UserError(f"{path}: tensors of a type that NumPy does not have, expected float32 or float64") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise UserError(f"{path}: tensor {name} is of type {tensor.dtype}, expected float32 or float64")
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for name in sorted({*shapes, *layout.shapes}):
        if shapes.get(name) != layout.shapes.get(name):
            found, expected = shapes.get(name, "none"), layout.shapes.get(name, "none")
            raise UserError(f"{path}: tensor {name} has shape {found}, the network expects {expected}")
    parameters = Arena(layout, dtype)
    for name in parameters:
        parameters[name][...] = tensors[name]
    return parameters
