"""What a run tells: its folder, and the lines that rank 0 prints."""

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from distbelief import checkpoint
from distbelief.algorithms.progress import BatchEvaluation, Evaluation, Listener, Outcome, Progress
from distbelief.config import Config, dump
from distbelief.errors import UserError
from distbelief.nn.arena import Layout

CONFIG, METRICS, PARAMETERS, RESULT = "config.toml", "metrics.jsonl", "parameters.safetensors", "result.json"
EVALUATIONS = "evaluations.jsonl"  # of Sandblaster: every evaluation of the loss and its gradient over a batch
SETTINGS = "settings.toml"  # of a run that a script began (distbelief.api), in place of its configuration
_ALL = (CONFIG, SETTINGS, METRICS, EVALUATIONS, PARAMETERS, RESULT)
# Plain progress lines of a batch log come no oftener than this (seconds); the live line of a terminal, faster.
PLAIN_SECONDS, LIVE_SECONDS = 10.0, 0.2


class RunFolder:
    """The files of one run: config.toml, metrics.jsonl, parameters.safetensors, and at the end result.json."""

    def __init__(self, folder: str | Path):
        self.path = Path(folder)

    def check(self, overwrite: bool) -> None:
        """Raises UserError if the folder already holds a run, or cannot be made. Changes nothing."""
        held = [name for name in _ALL if (self.path / name).exists()]
        if held and not overwrite:
            raise UserError(
                f"run.folder: {self.path} already holds a run ({', '.join(held)}); "
                "name another folder or set run.overwrite=true (in a script overwrite=True)"
            )
        existing = next(p for p in (self.path, *self.path.parents) if p.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise UserError(f"run.folder: {self.path} cannot be made: {existing} is not a folder we may write to")

    def begin(self, settings: msgspec.Struct) -> None:
        """Make the folder with the resolved configuration or settings, without the files of an earlier run.

        This and all that follow raise UserError where the folder cannot be written to.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            for name in _ALL:
                (self.path / name).unlink(missing_ok=True)
        self._write(CONFIG if isinstance(settings, Config) else SETTINGS, dump(settings))
        self._write(METRICS, "")

    def record(self, evaluation: Evaluation) -> None:
        """Append one line to metrics.jsonl."""
        self._append(METRICS, evaluation)

    def record_batch(self, evaluation: BatchEvaluation) -> None:
        """Append one line to evaluations.jsonl."""
        self._append(EVALUATIONS, evaluation)

    def end(self, outcome: Outcome, result: dict) -> None:
        """Write the parameters, unless a keeper has, and, last of all, result.json: a run that has one is complete."""
        if outcome.parameters is not None:
            checkpoint.save(self.path / PARAMETERS, outcome.parameters)
        self._write(RESULT, json.dumps(_json(result), indent=2, allow_nan=False) + "\n")

    def keeper(self, layout: Layout, dtype: np.dtype) -> checkpoint.Writer:
        """Writes the parameters piece by piece (algorithms.keeper.Keeper)."""
        return checkpoint.Writer(self.path / PARAMETERS, layout, dtype)

    def _append(self, name: str, record) -> None:
        with self._writing(), open(self.path / name, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(_json(dataclasses.asdict(record)), allow_nan=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        partial = self.path / f".{name}.partial"
        with self._writing():
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, self.path / name)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"run.folder: {self.path} cannot be written to: {error.strerror or error}") from error


def _json(value):
    """The same with None for each NaN and infinity, of which JSON knows nothing."""
    if isinstance(value, dict):
        return {name: _json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Reporter:
    """Hears of a run's progress (algorithms.progress.Listener): prints it, and keeps its record in a folder if any."""

    def __init__(self, folder: RunFolder | None, examples: float, seconds: float, out=None):
        """`examples`, `seconds`: how long the run goes on at most (infinite if not limited)."""
        self._folder = folder
        self._examples = examples
        self._seconds = seconds
        self._out = sys.stdout if out is None else out
        self._live = is_terminal(self._out)
        self._printed = -math.inf
        self._line = 0  # length of the live line that stands there

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._printed < (LIVE_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._printed = now
        done = max(progress.examples / self._examples, progress.time / self._seconds)
        text = (
            f"{done:4.0%}  {progress.time:6.1f} s  {progress.examples:>9} examples  "
            f"{progress.examples / max(progress.time, 1e-9):8.0f} examples/s  train loss {progress.train_loss:.4f}"
        )
        if self._live:
            self._out.write("\r" + text.ljust(self._line))
            self._line = len(text)
            self._out.flush()
        else:
            self.say(text)

    def evaluated(self, evaluation: Evaluation) -> None:
        if self._folder is not None:
            self._folder.record(evaluation)
        self._printed = time.monotonic()
        accurate = "" if evaluation.accuracy is None else f"  accuracy {evaluation.accuracy:.4f}"
        stale = f"  staleness {mean(evaluation.staleness):.2f}" if evaluation.staleness else ""
        refused = f"  refused {sum(evaluation.refused)}" if any(evaluation.refused) else ""
        self.say(
            f"held out at {evaluation.examples:>9} examples, {evaluation.time:6.1f} s: "
            f"loss {evaluation.loss:.4f}{accurate}{stale}{refused}"
        )

    def batch_evaluated(self, evaluation: BatchEvaluation) -> None:
        if self._folder is not None:
            self._folder.record_batch(evaluation)

    def warned(self, words: str) -> None:
        """On stderr."""
        self._clear()
        _warn(words)

    def say(self, text: str) -> None:
        """Print one line, in place of the live line."""
        self._clear()
        print(text, file=self._out, flush=True)

    def _clear(self) -> None:
        """Wipe the live line."""
        if self._line:
            self._out.write("\r" + " " * self._line + "\r")
            self._out.flush()
            self._line = 0


class Forwarder:
    """In place of a Reporter, for a listener of the user's own: keeps the record of the run and says nothing."""

    def __init__(self, folder: RunFolder | None, listener: Listener):
        self._folder = folder
        self.progress = listener.progress
        self._evaluated = listener.evaluated
        self._batch_evaluated = getattr(listener, "batch_evaluated", None)
        self.warned = getattr(listener, "warned", _warn)

    def evaluated(self, evaluation: Evaluation) -> None:
        if self._folder is not None:
            self._folder.record(evaluation)
        self._evaluated(evaluation)

    def batch_evaluated(self, evaluation: BatchEvaluation) -> None:
        if self._folder is not None:
            self._folder.record_batch(evaluation)
        if self._batch_evaluated is not None:
            self._batch_evaluated(evaluation)

    def say(self, text: str) -> None: ...


def _warn(words: str) -> None:
    print(f"distbelief: warning: {words}", file=sys.stderr, flush=True)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def is_terminal(stream) -> bool:
    """Whether somebody watches `stream`. mpirun gives ranks a pseudo-terminal of no size, in batch jobs too."""
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):
        return False
