"""The configuration of a run: TOML, decoded into frozen structs. What is wrong with it is one line naming the key."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tomli_w

from distbelief.algorithms.sandblaster.settings import Sandblaster
from distbelief.algorithms.settings import Count, Downpour, Evaluate, Procedure, Seconds, Stop
from distbelief.errors import UserError
from distbelief.explain import explain, stray_number
from distbelief.nn import Inputs, build
from distbelief.nn.specs import LayerSpecs, LossName
from distbelief.optim import Rule
from distbelief.processor.prepare import Blas
from distbelief.server.settings import Server


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Run(_Section):
    folder: str
    """Where the run's files go, relative to the current directory."""
    overwrite: bool = False
    """Replace a run that the folder already holds."""
    timeout: Seconds = 300.0
    """Seconds that any rank waits for another before it says so and ends the job."""
    threads: Count = 1
    """Cores that each rank uses."""
    blas: Blas = "scipy"
    """Whose float32 matrix products dense layers use: SciPy's, or MKL's (the extra `mkl`)."""


class Examples(_Section):
    """Where examples come from: `inputs` and `labels`, or `inputs` alone for pictures, or `generated` alone."""

    inputs: str | None = None
    """An array file (IDX, IDX .gz, .npy, .npz:member, .h5:dataset), [examples, ...]: images [examples, H, W, C], or
    anything of as many numbers in that order. Or a folder of pictures, with a folder in it for each class."""
    labels: str | None = None
    """An array file of as many classes, [examples]; for the squared error also real targets, [examples, outputs]."""
    generated: Count | None = None
    """So many examples are made up, of the network's shape and classes, with something to learn in them."""

    def __post_init__(self):
        if (self.inputs is None) == (self.generated is None):
            raise ValueError("Expected either `inputs` or `generated`")
        if self.generated is not None and self.labels is not None:
            raise ValueError("Expected no `labels` beside `generated`")


class Data(_Section):
    train: Examples
    held_out: Count
    """Training examples that are set aside for the evaluations during training."""
    test: Examples | None = None
    """Examples for one evaluation at the end, and for `distbelief evaluate`."""
    batch: Count = 32
    """Examples in a minibatch of one replica."""
    scale: float = 1.0
    """The network sees input * scale + shift."""
    shift: float = 0.0


class Network(_Section):
    inputs: Inputs
    """Numbers in one example, or [H, W, C] of an image."""
    layers: LayerSpecs
    """From the inputs up; the last layer's outputs are the classes."""
    loss: LossName = "softmax"
    penalty: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Adds penalty/2 times the sum of all squared weights to the loss of a minibatch."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """bfloat16: dense layers compute in it, gradients and master parameters stay float32."""
    partitions: Count = 1
    """Ranks that each replica is cut over."""


class Config(_Section):
    run: Run
    data: Data
    network: Network
    rule: Rule | None = None
    """What a shard does with a gradient; of no use to Sandblaster."""
    stop: Stop | None = None
    """Sandblaster has rules of its own besides."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of the initial parameters, the held-out split and the order of examples."""
    procedure: Procedure = "downpour"
    """How several ranks train together. One rank trains serially."""
    downpour: Downpour = Downpour()
    sandblaster: Sandblaster = Sandblaster()
    server: Server = Server()
    evaluate: Evaluate = Evaluate()


def load(path: str | Path, settings: Sequence[str] = ()) -> Config:
    """The configuration in `path`, changed by `settings` ("section.key=value"), with absolute paths. Local.

    Raises UserError: one line that names the file and the key.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from error
    for setting in settings:
        _set(table, setting)
    return _resolve(_decode(table, str(path), settings))


def dump(config: Config) -> str:
    """The configuration as TOML; `load` reads it back."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(config)))


def _set(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    *path, last = key.strip().split(".")
    if not equals or not all([*path, last]) or not setting.isprintable():
        shown = setting if setting.isprintable() else repr(setting)
        raise UserError(f"--set {shown}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    here: Any = table
    try:
        for name in path:
            here = here[_index(name)] if isinstance(here, list) else here.setdefault(name, {})
        if isinstance(here, list):
            here[_index(last)] = value
        else:
            here[last] = value
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--set {setting}: there is no place {key.strip()}") from error


def _index(name: str) -> int:
    if not name.isdecimal():
        raise ValueError(name)
    return int(name)


def _decode(table: dict[str, Any], path: str, settings: Sequence[str]) -> Config:
    try:
        config = msgspec.convert(table, Config)
        if stray := stray_number(config):
            raise UserError(
                f"{_blamed(path, settings, stray[0])}: {stray[0]}: expected a finite number, found {stray[1]}"
            )
    except msgspec.ValidationError as error:
        key, words = explain(error, table, Config)
        raise UserError(f"{_blamed(path, settings, key)}: {key}: {words}") from None
    if wanting := missing(config.procedure, config.rule, config.stop):
        raise UserError(f"{path}: {wanting[0]}: {wanting[1]}")
    try:
        build(config.network.layers, config.network.inputs, config.network.loss)
    except UserError as error:
        raise UserError(f"{_blamed(path, settings, 'network')}: {error}") from None
    return config


def missing(procedure: Procedure, rule: Rule | None, stop: Stop | None) -> tuple[str, str] | None:
    """The key that `procedure` cannot do without, and what is wrong with it. Local."""
    if procedure != "sandblaster" and rule is None:
        return "rule", "missing"
    if procedure != "sandblaster" and stop is None:
        return "stop", "missing"
    if stop is not None and stop.epochs is None and stop.seconds is None:
        return "stop", "expected epochs, seconds or both"
    return None


def _blamed(path: str, settings: Sequence[str], key: str) -> str:
    """Where the user wrote `key`: in the file, or in the last setting that touched it."""
    for setting in reversed(settings):
        touched = setting.partition("=")[0].strip()
        if f"{key}.".startswith(f"{touched}.") or f"{touched}.".startswith(f"{key}."):
            return f"--set {setting}"
    return path


def _resolve(config: Config) -> Config:
    """With absolute paths, so that the run's own copy means the same everywhere."""

    replace = msgspec.structs.replace

    def absolute(examples: Examples | None) -> Examples | None:
        paths = {name: getattr(examples, name, None) for name in ("inputs", "labels")}
        return examples and replace(examples, **{name: path and _absolute(path) for name, path in paths.items()})

    if config.sandblaster.warmstart is not None:
        sandblaster = replace(config.sandblaster, warmstart=_absolute(config.sandblaster.warmstart))
        config = replace(config, sandblaster=sandblaster)
    data = replace(config.data, train=absolute(config.data.train), test=absolute(config.data.test))
    return replace(config, data=data, run=replace(config.run, folder=_absolute(config.run.folder)))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
