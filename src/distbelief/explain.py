"""What is wrong with a table, in a user's words: msgspec's errors, led by the key and with what was expected."""

import math
import re
import types
import typing
from typing import Annotated, Any

import msgspec
import numpy as np

_WORDS = {"object": "table", "array": "list"}  # msgspec speaks JSON, a configuration TOML
_LONGEST = 60  # characters of an offending value that are shown


def explain(error: msgspec.ValidationError, table: dict[str, Any], struct: type) -> tuple[str, str]:
    """(the dotted key, what is wrong with it) for the error that converting `table` to `struct` raised. Local."""
    words, _, place = str(error).rpartition(" - at `$") if " - at `$" in str(error) else (str(error), "", "")
    path, here, kind = _walk(re.findall(r"\w+", place), table, struct)
    if unknown := re.match(r"Object contains unknown field `(.*)`", words, re.DOTALL):
        return _join(path, unknown[1]), f"unknown key, expected one of: {', '.join(_keys(kind, here))}"
    if missing := re.match(r"Object missing required field `(.*)`", words):
        key = missing[1]
        choices = f", expected one of: {', '.join(_choices(kind))}" if key == _tag_field(kind) else ""
        return _join(path, key), f"missing{choices}"
    found = repr(here)
    found = found if len(found) <= _LONGEST else found[:_LONGEST] + "..."
    if words.startswith("Invalid"):
        return path, f"expected one of: {', '.join(_choices(kind))}, found {found}"
    words = re.sub(r"\w+", lambda word: _WORDS.get(word[0], word[0]), words.replace("`", "").replace(" | null", ""))
    return path or "the whole file", f"{words[0].lower()}{words[1:]}, found {found}"


def plain(value: Any) -> Any:
    """For msgspec's `enc_hook`: NumPy's numbers as Python's; anything else as words, for msgspec to refuse. Local."""
    return value.item() if isinstance(value, np.generic) else repr(value)


def stray_number(value: Any, path: str = "") -> tuple[str, float] | None:
    """The key and value of the first number below `value` (structs, lists) that is a NaN or infinite. Local."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, value)
    if isinstance(value, msgspec.Struct):
        parts = [(name, getattr(value, name)) for name in value.__struct_fields__]
    else:
        parts = list(enumerate(value)) if isinstance(value, list) else []
    return next((found for name, part in parts if (found := stray_number(part, _join(path, str(name))))), None)


def _walk(steps: list[str], here: Any, kind: Any) -> tuple[str, Any, Any]:
    """Follow msgspec's path down the table: the dotted key, the value found there, and the type expected there."""
    path = ""
    for step in steps:
        if isinstance(here, list | tuple):
            lists = [k for k in _alternatives(kind) if typing.get_origin(k) is list]
            kind, here = typing.get_args(lists[0])[0], here[int(step)]
        else:
            struct = _struct(kind, here)
            # The tag of a union is no field; its choices are the union's.
            kind = kind if step == _tag_field(kind) else typing.get_type_hints(struct, include_extras=True).get(step)
            here = here.get(step)
        path = _join(path, step)
    return path, here, kind


def _bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _alternatives(kind: Any) -> list[Any]:
    """The members of a union; of any other type itself."""
    kind = _bare(kind)
    union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return [_bare(k) for k in typing.get_args(kind)] if union else [kind]


def _structs(kind: Any) -> list[type]:
    """The structs among the alternatives of a type."""
    return [k for k in _alternatives(kind) if isinstance(k, type) and issubclass(k, msgspec.Struct)]


def _struct(kind: Any, here: Any) -> type:
    """The struct among the alternatives of `kind` that the table `here` means by its tag."""
    structs = _structs(kind)
    tag = here.get(_tag_field(kind)) if isinstance(here, dict) else None
    return next((struct for struct in structs if struct.__struct_config__.tag == tag), structs[0])


def _tag_field(kind: Any) -> str | None:
    structs = _structs(kind)
    return structs[0].__struct_config__.tag_field if structs else None


def _keys(kind: Any, here: Any) -> list[str]:
    """The keys that a table of this type may have, in a union by what its tag means."""
    tag = _tag_field(kind)
    structs = [_struct(kind, here)] if tag in here else _structs(kind)
    fields = [field for struct in structs for field in struct.__struct_fields__]
    return list(dict.fromkeys([tag, *fields] if tag else fields))


def _choices(kind: Any) -> list[str]:
    """The words that a Literal or the tag of a union may be."""
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    return [struct.__struct_config__.tag for struct in _structs(kind) if struct.__struct_config__.tag]


def _join(path: str, key: str) -> str:
    key = key if key.isprintable() else repr(key)
    return f"{path}.{key}" if path else key
