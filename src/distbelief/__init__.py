"""Large scale distributed deep networks (Dean et al., NIPS 2012) on CPU clusters.

Importing the package starts no MPI. What scripts use (distbelief.api) is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distbelief.api import (
        Adagrad,
        ArrayData,
        Downpour,
        Evaluate,
        FixedRate,
        Model,
        Momentum,
        Outcome,
        Sandblaster,
        Server,
        Stop,
        UserError,
        train,
    )

__version__ = "0.1.0"

__all__ = [
    "Adagrad",
    "ArrayData",
    "Downpour",
    "Evaluate",
    "FixedRate",
    "Model",
    "Momentum",
    "Outcome",
    "Sandblaster",
    "Server",
    "Stop",
    "UserError",
    "train",
]


def __getattr__(name: str) -> Any:
    # By name, and not whatever the api has: `from distbelief import checkpoint` asks here before it imports.
    if name in __all__:
        from distbelief import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
