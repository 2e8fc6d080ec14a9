"""Parameters in files: safetensors under logical tensor names, whatever the number of ranks that made them."""

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
