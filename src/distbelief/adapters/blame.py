"""One line for what a user's code does wrong: what failed, how, and where."""

import contextlib
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import distbelief
from distbelief.errors import UserError
from distbelief.nn.arena import Layout, Misfit

_OURS = str(Path(distbelief.__file__).parent)


def blame(what: str, error: Exception, layout: Layout | None = None) -> UserError:
    """`what` raised `error`, and works with the tensors of `layout`."""
    # Users know the exceptions of an arena as what they are besides: a ValueError, a KeyError.
    kind = type(error).__bases__[-1] if isinstance(error, Misfit) else type(error)
    words = f"{kind.__name__}: {str(error).strip().splitlines()[0]}" if str(error) else kind.__name__
    if isinstance(error, KeyError) and layout is not None:
        words += f"; the tensors are: {', '.join(layout.shapes)}"
    return UserError(f"{what}: {words}{_place(error)}")


def number(value: Any, what: str, expected: str) -> float:
    """What `what` returned, as a float. Raises UserError if it is not one number."""
    if np.ndim(value) == 0 and hasattr(value, "__float__"):
        with contextlib.suppress(TypeError, ValueError):
            return float(value)
    shape = f" of shape {np.shape(value)}" if np.ndim(value) else ""
    raise UserError(f"{what} returned a {type(value).__name__}{shape}, expected {expected}")


def _place(error: Exception) -> str:
    """The file and line of a user's code where `error` came from, in brackets; nothing if none of theirs ran."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(_OURS) and "site-packages" not in f.filename]
    return f" ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else ""
