"""`distbelief plot`: what runs tell in metrics.jsonl, as pictures.

learning.png         accuracy and loss on the held-out examples, against time and against examples
throughput.png       examples per second between evaluations, against time
staleness.png        for each shard, a histogram of the staleness of its updates
mean_staleness.png   the mean staleness of each shard against time, of runs that have no histograms
"""

import contextlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from distbelief.errors import UserError
from distbelief.report import METRICS

# Okabe and Ito's colours, which colour-blind readers can tell apart too, without the yellow: it is faint on white.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
DASHES = ["-", "--", ":", "-."]  # the next one whenever the colours begin again
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": "#e0e0e0",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "savefig.dpi": 150,
}
PANELS_ACROSS = 4
PICTURES = ["learning.png", "throughput.png", "staleness.png", "mean_staleness.png"]


class Record(msgspec.Struct):
    """What pictures need of one line of metrics.jsonl (algorithms.progress.Evaluation)."""

    time: float
    examples: int
    loss: float
    accuracy: float | None = None
    staleness: list[float] = []
    staleness_histogram: list[list[int]] = []
    staleness_edges: list[int] = []
    """Where the buckets begin. Earlier runs tell none: bucket b is staleness b."""

    def __post_init__(self):
        most, edges = max(map(len, self.staleness_histogram), default=0), self.staleness_edges
        if edges and (len(edges) < most or any(a >= b for a, b in zip(edges, edges[1:], strict=False))):
            raise ValueError(f"staleness_edges: expected {most} numbers that rise, found {edges}")

    def begins(self, buckets: int) -> list[int]:
        """Where each of so many buckets begins, and where the last one would end if it were as wide as the one before,
        though it is open."""
        edges = self.staleness_edges[:buckets] or list(range(buckets))
        return [*edges, edges[-1] + (edges[-1] - edges[-2] if buckets > 1 else 1)]


@dataclass(frozen=True)
class Run:
    name: str
    """Tells it from the other runs in the same pictures."""
    records: list[Record]


def plot(folders: list[str], to: str) -> list[Path]:
    """Draw the runs in `folders` into the folder `to`; returns the files that were written. Local.

    A picture that no run has anything for is left out, and what other runs have left of it goes. Raises UserError if a
    folder holds no run, or its metrics are broken, if `to` cannot be written to, or if matplotlib is missing.
    """
    paths = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    runs = [Run(name, read(path)) for name, path in zip(names(paths), paths, strict=True)]
    with _matplotlib().rc_context(STYLE):
        drawn = figures(runs)
        for name in PICTURES:
            if name not in drawn:  # what lies there is of other runs
                with contextlib.suppress(OSError):
                    (Path(to) / name).unlink()
        return [_write(figure, Path(to) / name) for name, figure in drawn.items()]


def figures(runs: list[Run]) -> dict:
    """The figures (matplotlib's) that `runs` have something for, by the names of their files. Local."""
    pictures = {
        "learning.png": _learning,
        "throughput.png": _throughput,
        "staleness.png": _staleness,
        "mean_staleness.png": _mean_staleness,
    }
    drawn = {name: draw(runs) for name, draw in pictures.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def read(folder: Path) -> list[Record]:
    """The records of the run in `folder`, at least one. Raises UserError if there are none, or one is broken. Local."""
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"{folder}: not a run's folder, it has no {METRICS}")
    records = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        try:
            records.append(msgspec.convert(json.loads(line), Record))
        except json.JSONDecodeError as error:
            if not line.endswith("\n"):  # the last one, of a job that was killed while it wrote
                break
            raise UserError(f"{path}: line {number} is not JSON: {error.msg}") from error
        except msgspec.ValidationError as error:
            raise UserError(f"{path}: line {number} is not the record of an evaluation: {error}") from error
    if not records:
        raise UserError(f"{path}: no evaluation yet")
    return records


def names(paths: list[Path]) -> list[str]:
    """The shortest names that tell `paths` apart: from the last folder that they have in common."""
    above = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, above) for path in paths]


def _matplotlib():
    """matplotlib, which draws without a display as long as nobody asks for pyplot."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise UserError(
            f"matplotlib cannot be loaded ({error}), and plots need it: pip install 'distbelief[plot]'"
        ) from error
    return matplotlib


def _write(figure, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _figure(width: float, height: float):
    return _matplotlib().figure.Figure(figsize=(width, height), layout="constrained")


def _look(number: int) -> dict:
    """How the lines of run `number` look in every picture."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }


def _marks(number: int, points: int) -> dict:
    """Marks on a line, a dozen at most."""
    return {"marker": MARKERS[number % len(MARKERS)], "markevery": max(points // 12, 1)}


def _with_legend(figure, handles: list, runs: list[Run]):
    """The figure, with the names of runs below it; None if there are none."""
    if not runs:
        return None
    labels = [run.name.replace("$", r"\$") for run in runs]  # no formulas
    most = max(1, int(figure.get_figwidth() * 12 / (max(map(len, labels)) + 6)))
    rows = -(-len(labels) // most)
    figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // rows))
    return figure


def _time(runs: list[Run]) -> tuple[float, str]:
    """The seconds in a fitting unit of time, and the label of an axis in it."""
    longest = max(record.time for run in runs for record in run.records)
    unit, name = next(((u, n) for u, n in ((3600.0, "h"), (60.0, "min")) if longest >= 5 * u), (1.0, "s"))
    return unit, f"training time ({name})"


def _in_thousands(axis) -> None:
    """12000 as 12 k."""
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter())


def _learning(runs: list[Run]):
    """Two columns, time and examples; a row each for accuracy, if any run has it, and loss."""
    rows = [("loss", "loss on held-out examples")]
    if any(record.accuracy is not None for run in runs for record in run.records):
        rows.insert(0, ("accuracy", "accuracy on held-out examples"))
    unit, time_label = _time(runs)
    figure = _figure(10, 1 + 3.3 * len(rows))
    axes = figure.subplots(len(rows), 2, sharex="col", sharey="row", squeeze=False)
    for number, run in enumerate(runs):
        look = _look(number) | _marks(number, len(run.records))
        times = [record.time / unit for record in run.records]
        examples = [record.examples for record in run.records]
        for (value, _), (by_time, by_examples) in zip(rows, axes, strict=True):
            values = [_number(getattr(record, value)) for record in run.records]
            by_time.plot(times, values, **look)
            by_examples.plot(examples, values, **look)
    for (_, label), (by_time, by_examples) in zip(rows, axes, strict=True):
        by_time.set(ylabel=label, xlim=(0, None))
        by_examples.set_xlim(0, None)
    axes[-1][0].set_xlabel(time_label)
    axes[-1][1].set_xlabel("examples trained on")
    _in_thousands(axes[-1][1].xaxis)
    return _with_legend(figure, axes[0][0].lines, runs)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _throughput(runs: list[Run]):
    """A level from one evaluation to the next."""
    unit, time_label = _time(runs)
    figure = _figure(8, 4.5)
    axis = figure.subplots()
    drawn = []
    for number, run in enumerate(runs):
        pairs = list(zip(run.records, run.records[1:], strict=False))
        if pairs:
            drawn.append(run)
            speeds = [(b.examples - a.examples) / (b.time - a.time) if b.time > a.time else math.nan for a, b in pairs]
            times = [record.time / unit for record in run.records]
            axis.plot(times, [*speeds, speeds[-1]], drawstyle="steps-post", **_look(number))
    axis.set(xlabel=time_label, ylabel="examples/s between evaluations", ylim=(0, None), xlim=(0, None))
    _in_thousands(axis.yaxis)
    return _with_legend(figure, axis.lines, drawn)


def _staleness(runs: list[Run]):
    """A panel for each shard: how many of its updates had each staleness. A bucket of several is a mean of them, so
    that areas are what they count."""
    drawn = [run for run in runs if _updates(run)]
    if not drawn:
        return None
    last = [run.records[-1] for run in drawn]
    every = [(record, counts) for record in last for counts in record.staleness_histogram if counts]
    open_ended = max((record.begins(len(counts))[-2] for record, counts in every if counts[-1]), default=0)
    label = "staleness (updates)" + (f"\nlast bar: {open_ended} or more" if open_ended else "")
    figure, panels = _panels(max(len(record.staleness_histogram) for record in last), label)
    handles = []
    for run, record in zip(drawn, last, strict=True):
        look = _look(runs.index(run))
        for panel, counts in zip(panels, record.staleness_histogram, strict=False):
            shares, edges = _shares(counts or [0], record.begins(len(counts) or 1))
            panel.stairs(shares, edges, fill=True, alpha=0.15, color=look["color"])
            handle = panel.stairs(shares, edges, linewidth=1.6, **look)
        handles.append(handle)
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    panels[0].set(xlim=(-0.5, None), ylim=(0, None))
    figure.supylabel("share of the shard's updates (% for each staleness)", fontsize="medium")
    return _with_legend(figure, handles, drawn)


def _shares(counts: list[int], begins: list[int]) -> tuple[list[float], list[float]]:
    """The share of each staleness in percent, bucket by bucket up to the last that has any, and the edges of bars in
    whose middle the staleness lies."""
    filled = 1 + max((b for b, count in enumerate(counts) if count), default=0)
    widths = [b - a for a, b in zip(begins, begins[1:], strict=False)]
    shares = [100 * count / max(sum(counts), 1) / width for count, width in zip(counts, widths, strict=True)]
    return shares[:filled], [begin - 0.5 for begin in begins[: filled + 1]]


def _updates(run: Run) -> bool:
    """Whether the histograms of a run have anything in them."""
    return any(map(any, run.records[-1].staleness_histogram))


def _mean_staleness(runs: list[Run]):
    """A panel for each shard: the mean staleness of its updates so far."""
    drawn = [run for run in runs if run.records[-1].staleness and not run.records[-1].staleness_histogram]
    if not drawn:
        return None
    unit, time_label = _time(drawn)
    figure, panels = _panels(max(len(record.staleness) for run in drawn for record in run.records), time_label)
    handles = []
    for run in drawn:
        look = _look(runs.index(run)) | _marks(runs.index(run), len(run.records))
        shards = len(run.records[-1].staleness)
        told = [record for record in run.records if len(record.staleness) == shards]
        for shard, panel in enumerate(panels[:shards]):
            values = [record.staleness[shard] for record in told]
            (handle,) = panel.plot([record.time / unit for record in told], values, **look)
        handles.append(handle)
    panels[0].set(xlim=(0, None), ylim=(0, None))
    figure.supylabel("mean staleness so far (updates)", fontsize="medium")
    return _with_legend(figure, handles, drawn)


def _panels(shards: int, label: str):
    """A figure of panels with common axes, one for each shard, and the list of them; `label`: of the axis below."""
    across = min(shards, PANELS_ACROSS)
    down = -(-shards // across)
    figure = _figure(max(8.0, 3.0 * across), max(4.5, 1.2 + 2.4 * down))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for panel in panels[shards:]:
        panel.remove()
    for shard, panel in enumerate(panels[:shards]):
        panel.set_title(f"shard {shard}", fontsize="medium")
        if shard + across >= shards:  # the lowest of its column
            panel.tick_params(labelbottom=True)
            panel.set_xlabel(label)
    return figure, panels[:shards]
