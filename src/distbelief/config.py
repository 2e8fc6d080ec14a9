"""The configuration of a run: TOML, decoded into frozen structs. What is wrong with it is one line naming the key."""

import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tomli_w

from distbelief.algorithms.settings import Count, Downpour, Evaluate, Seconds, Stop
from distbelief.errors import UserError
from distbelief.optim import Rule


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Run(_Section):
    folder: str
    """Where the run's files go, relative to the current directory."""
    overwrite: bool = False
    """Replace a run that the folder already holds."""
    timeout: Seconds = 300.0
    """Seconds that any rank waits for another before it says so and ends the job."""


class Files(_Section):
    """Two array files (IDX, IDX .gz, .npy, .npz:member) with as many examples of one as of the other."""

    inputs: str
    labels: str


class Data(_Section):
    train: Files
    held_out: Count
    """Training examples that are set aside for the evaluations during training."""
    test: Files | None = None
    """Examples for one evaluation at the end, and for `distbelief evaluate`."""
    batch: Count = 32
    """Examples in a minibatch of one replica."""
    scale: float = 1.0
    """The network sees input * scale + shift."""
    shift: float = 0.0


class DenseLayer(_Section, tag_field="kind", tag="dense"):
    outputs: Count
    activation: Literal["linear", "sigmoid", "tanh", "relu"] = "linear"


class Network(_Section):
    inputs: Count
    """Numbers in one example."""
    layers: Annotated[list[DenseLayer], msgspec.Meta(min_length=1)]
    """From the inputs up; the last layer's outputs are the classes."""
    loss: Literal["softmax"] = "softmax"
    dtype: Literal["float32", "float64"] = "float32"


class Server(_Section):
    shards: Count = 1
    """Ranks 0 to shards-1 hold the parameters."""


class Config(_Section):
    run: Run
    data: Data
    network: Network
    rule: Rule
    stop: Stop
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of the initial parameters, the held-out split and the order of examples."""
    downpour: Downpour = Downpour()
    server: Server = Server()
    evaluate: Evaluate = Evaluate()


def load(path: str | Path, settings: list[str] | tuple[str, ...] = ()) -> Config:
    """The configuration in `path`, changed by `settings` ("section.key=value"), with absolute paths. Local.

    Raises UserError: one line that names the file and the key.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from error
    for setting in settings:
        _set(table, setting)
    return _resolve(_decode(table, str(path)))


def dump(config: Config) -> str:
    """The configuration as TOML; `load` reads it back."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(config)))


def _set(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {setting}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    *path, last = key.strip().split(".")
    here: Any = table
    try:
        for name in path:
            here = here[int(name)] if isinstance(here, list) else here.setdefault(name, {})
        if isinstance(here, list):
            here[int(last)] = value
        else:
            here[last] = value
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--set {setting}: there is no place {key.strip()}") from error


def _decode(table: dict[str, Any], name: str) -> Config:
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise UserError(f"{name}: {_explain(str(error), table)}") from None
    if config.stop.epochs is None and config.stop.seconds is None:
        raise UserError(f"{name}: stop: expected epochs, seconds or both")
    return config


def _explain(text: str, table: dict[str, Any]) -> str:
    """msgspec's words, led by the key and followed by the value found there."""
    words, _, place = text.partition(" - at `$")
    steps = re.findall(r"\w+|\[\.\.\.\]|\[\d+\]", place)
    kind: Any = Config
    here: Any = table
    path = ""
    for step in steps:
        if step.startswith("["):
            # msgspec does not say which element it means: the first that does not convert.
            kind = typing.get_args(typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind)[0]
            index = next(i for i, element in enumerate(here) if not _converts(element, kind))
            here, path = here[index], f"{path}.{index}"
        else:
            kind = typing.get_type_hints(kind, include_extras=True).get(step) if isinstance(kind, type) else None
            here = here.get(step) if isinstance(here, dict) else None
            path = f"{path}.{step}".lstrip(".")
            kind = _struct(kind, here)
    if unknown := re.match(r"Object contains unknown field `(.*)`", words):
        known = ", ".join(kind.__struct_fields__) if isinstance(kind, type) else "others"
        return f"{path}.{unknown[1]}: unknown key, expected one of: {known}".lstrip(".")
    if missing := re.match(r"Object missing required field `(.*)`", words):
        return f"{path}.{missing[1]}: missing".lstrip(".")
    words = words.replace("`", "")
    return f"{path or 'the whole file'}: {words[0].lower()}{words[1:]}, found {here!r}"


def _struct(kind: Any, here: Any) -> Any:
    """The struct among the alternatives of `kind` that the table `here` means."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        structs = [k for k in typing.get_args(kind) if isinstance(k, type) and issubclass(k, msgspec.Struct)]
        tag = here.get("kind") if isinstance(here, dict) else None
        return next((k for k in structs if k.__struct_config__.tag == tag), structs[0] if structs else None)
    return kind


def _converts(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _resolve(config: Config) -> Config:
    """With absolute paths, so that the run's own copy means the same everywhere."""

    def absolute(files: Files | None) -> Files | None:
        return files and Files(_absolute(files.inputs), _absolute(files.labels))

    replace = msgspec.structs.replace
    data = replace(config.data, train=absolute(config.data.train), test=absolute(config.data.test))
    return replace(config, data=data, run=replace(config.run, folder=_absolute(config.run.folder)))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
