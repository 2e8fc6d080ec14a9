"""Intel's MKL, if it is installed: loaded at run time, never linked."""

import ctypes
import functools
import importlib.metadata

from distbelief.errors import UserError

_NAMES = ("libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so")
# Arguments of mkl_set_interface_layer and mkl_set_threading_layer: 32-bit integers; no threads of its own, since our
# kernels call it from theirs.
_LP64, _SEQUENTIAL = 0, 1


@functools.cache
def library() -> ctypes.CDLL | None:
    """MKL from the wheel `mkl` in this environment, or from where the loader finds it; None if nowhere. Local."""
    for path in [*_from_wheel(), *_NAMES]:
        try:
            mkl = ctypes.CDLL(path)
        except OSError:
            continue
        mkl.MKL_Set_Interface_Layer(_LP64)
        mkl.MKL_Set_Threading_Layer(_SEQUENTIAL)
        return mkl
    return None


def address(function: str) -> int:
    """Where a function of MKL lies. Local. Raises UserError if MKL is missing, or has no such function."""
    mkl = library()
    if mkl is None:
        raise UserError("run.blas: MKL is not installed, expected the extra distbelief[mkl] or the site's module")
    try:
        return ctypes.cast(getattr(mkl, function), ctypes.c_void_p).value
    except AttributeError:
        raise UserError(f"run.blas: this MKL has no {function}, expected version 2021 or later") from None


def has(function: str) -> bool:
    """Whether MKL is there, and has such a function. Local."""
    return hasattr(library(), function)


def version() -> str | None:
    """As MKL calls itself; None if it is not installed. Local."""
    mkl = library()
    if mkl is None:
        return None
    text = ctypes.create_string_buffer(200)
    mkl.MKL_Get_Version_String(text, len(text))
    return text.value.decode().strip()


def _from_wheel() -> list[str]:
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [str(file.locate()) for file in files if file.name in _NAMES]
