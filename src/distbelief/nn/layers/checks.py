"""What a layer is made with, in a user's words where it is wrong."""

from collections.abc import Mapping

from distbelief.errors import UserError


def one_or_more(key: str, value: int) -> int:
    """`value`; raises UserError if it is less than one."""
    if value < 1:
        raise UserError(f"{key}: {value}, expected 1 or more")
    return value


def named(key: str, name: str, choices: Mapping[str, int]) -> int:
    """The choice that `name` is; raises UserError if there is none."""
    if name not in choices:
        raise UserError(f"{key}: {name!r}, expected one of: {', '.join(choices)}")
    return choices[name]
