"""`distbelief plot`: the pictures that are written, and what is said of runs that cannot be drawn."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from distbelief.errors import UserError
from distbelief.plot import Run, figures, names, plot, read
from distbelief.server.messages import EDGES, bucket

PICTURES = ["learning.png", "throughput.png", "staleness.png", "mean_staleness.png"]


def a_record(number: int = 0, **changes) -> dict:
    return {
        "time": 1.5 * number,
        "step": 10 * number,
        "examples": 320 * number,
        "loss": 2.3 / (number + 1),
        "accuracy": 1 - 0.9 / (number + 1),
        "train_loss": None,
        "examples_per_s": 213.3,
        "staleness": [],
    } | changes


def write_run(folder: Path, records: list[dict]) -> str:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(folder)


def serial(count: int = 4) -> list[dict]:
    return [a_record(number) for number in range(count)]


def with_means(shards: int, count: int = 4) -> list[dict]:
    return [a_record(number, staleness=[0.5 * number] * shards) for number in range(count)]


def with_histograms(shards: int, count: int = 4) -> list[dict]:
    histograms = [[[0, 3 * number, number, 0]] * shards for number in range(count)]
    return [
        record | {"staleness_histogram": histogram}
        for record, histogram in zip(with_means(shards, count), histograms, strict=True)
    ]


def written(paths: list[Path], to: Path) -> set[str]:
    """The names of `paths`, once it is sure that they are what is in `to`, and that all are pictures of some size."""
    assert sorted(paths) == sorted(to.iterdir())
    for path in paths:
        head = path.read_bytes()[:24]
        assert head.startswith(b"\x89PNG\r\n\x1a\n")
        assert all(500 < side < 10_000 for side in struct.unpack(">II", head[16:24])), path
    return {path.name for path in paths}


def draw(tmp_path: Path, *runs: list[dict]) -> set[str]:
    pytest.importorskip("matplotlib")
    folders = [write_run(tmp_path / "runs" / f"run{number}", run) for number, run in enumerate(runs)]
    return written(plot(folders, str(tmp_path / "new" / "plots")), tmp_path / "new" / "plots")


# What is drawn


def drawn(records: list[dict], tmp_path: Path) -> dict:
    """The figures of a run, by name."""
    pytest.importorskip("matplotlib")
    return figures([Run("run", read(Path(write_run(tmp_path / "run", records))))])


def told(records: list[dict], key: str) -> list[float]:
    return [record[key] for record in records]


@pytest.mark.parametrize(("seconds", "unit"), [(1.5, 1.0), (200.0, 60.0), (9000.0, 3600.0)])
def test_learning_is_what_the_metrics_say(tmp_path, seconds, unit):
    records = [record | {"time": seconds * number} for number, record in enumerate(serial())]
    axes = drawn(records, tmp_path)["learning.png"].axes
    for axis, value in zip(axes, ["accuracy", "accuracy", "loss", "loss"], strict=True):
        (line,) = axis.lines
        assert list(line.get_ydata()) == told(records, value)
    times, examples = [time / unit for time in told(records, "time")], told(records, "examples")
    assert [list(axis.lines[0].get_xdata()) for axis in axes] == [times, examples, times, examples]


def test_throughput_is_examples_by_time_between_evaluations(tmp_path):
    records = [a_record(0), a_record(1, time=2.0, examples=100), a_record(2, time=7.0, examples=1100)]
    (axis,) = drawn(records, tmp_path)["throughput.png"].axes
    (line,) = axis.lines
    assert list(line.get_xdata()) == [0.0, 2.0, 7.0] and list(line.get_ydata()) == [50.0, 200.0, 200.0]
    assert line.get_drawstyle() == "steps-post"


def test_histograms_are_shares_of_each_shards_updates_in_percent(tmp_path):
    records = [a_record(0), a_record(1, staleness=[0.5, 1.0], staleness_histogram=[[1, 3, 0], [0, 0, 5]])]
    panels = drawn(records, tmp_path)["staleness.png"].axes
    for panel, shares in zip(panels, [[25.0, 75.0], [0.0, 0.0, 100.0]], strict=True):
        for stairs in panel.patches:
            values, edges, _ = stairs.get_data()
            assert list(values) == shares and list(edges) == [b - 0.5 for b in range(len(shares) + 1)]


def test_buckets_of_several_are_drawn_where_they_lie_by_the_area_that_they_count(tmp_path):
    """40 of 80 updates between 32 and 35 are 12.5 % for each; behind an older run's, whose buckets are of one."""
    counts = [0] * len(EDGES)
    for staleness in [0] * 20 + [33] * 40 + [100] * 20:
        counts[bucket(staleness)] += 1
    record = a_record(1, staleness=[41.5], staleness_histogram=[counts], staleness_edges=list(EDGES))
    pytest.importorskip("matplotlib")
    runs = [[record], [a_record(1, staleness=[1.0], staleness_histogram=[[0, 4]])]]
    runs = [Run(str(n), read(Path(write_run(tmp_path / str(n), run)))) for n, run in enumerate(runs)]
    figure = figures(runs)["staleness.png"]
    (panel,) = figure.axes
    for number, expected in enumerate([{(0, 1): 25.0, (32, 36): 12.5, (96, 104): 3.125}, {(1, 2): 100.0}]):
        shares, edges, _ = panel.patches[2 * number].get_data()
        bars = {(a + 0.5, b + 0.5): share for a, b, share in zip(edges, edges[1:], shares, strict=False) if share}
        assert bars == expected
    assert panel.get_xlabel().endswith("last bar: 1 or more") and "for each staleness" in figure.get_supylabel()


def test_the_last_bucket_says_from_where_it_is_open(tmp_path):
    counts = [0] * (len(EDGES) - 1) + [3]
    records = [a_record(1, staleness=[9000.0], staleness_histogram=[counts], staleness_edges=list(EDGES))]
    (panel,) = drawn(records, tmp_path)["staleness.png"].axes
    assert panel.get_xlabel().endswith("last bar: 8192 or more")
    shares, edges, _ = panel.patches[0].get_data()
    assert list(edges[-2:]) == [8191.5, 8191.5 + 512] and shares[-1] == pytest.approx(100 / 512)


def test_mean_staleness_is_that_of_each_shard(tmp_path):
    records = [a_record(number, staleness=[0.5 * number, 2.0 * number]) for number in range(4)]
    panels = drawn(records, tmp_path)["mean_staleness.png"].axes
    for shard, panel in enumerate(panels):
        (line,) = panel.lines
        assert list(line.get_xdata()) == told(records, "time")
        assert list(line.get_ydata()) == [record["staleness"][shard] for record in records]
    assert len(panels) == 2


# The pictures


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([serial()], {"learning.png", "throughput.png"}),
        ([with_histograms(2)], {"learning.png", "throughput.png", "staleness.png"}),
        ([with_means(3)], {"learning.png", "throughput.png", "mean_staleness.png"}),
        ([serial(), with_means(1), with_histograms(5), with_histograms(2)], set(PICTURES)),
        ([serial(1)], {"learning.png"}),
        ([with_histograms(1, count=1)], {"learning.png"}),  # it has pushed nothing yet
        ([serial(100)] * 16, {"learning.png", "throughput.png"}),  # more than there are colours
    ],
    ids=["serial", "histograms", "means", "all kinds", "one evaluation", "no push", "many runs"],
)
def test_pictures_of_what_the_runs_tell(tmp_path, runs, expected):
    assert draw(tmp_path, *runs) == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "records",
    [
        [a_record(number, accuracy=None) for number in range(3)],
        [a_record(0), a_record(1), a_record(1)],  # no time between them
        [a_record(0), a_record(1, loss=float("nan"))],
        [a_record(0), a_record(1, time=40_000.0)],
        [a_record(0), a_record(1, staleness=[0.0])],
        [a_record(1, staleness_histogram=[[0, 0, 7], [0, 0, 0], []])],
    ],
    ids=["no accuracy", "no time", "nan", "hours", "staleness later", "last bucket and empty shards"],
)
def test_odd_runs_are_drawn_too(tmp_path, records):
    assert "learning.png" in draw(tmp_path, records)


@pytest.mark.filterwarnings("error")
def test_names_of_runs_are_no_formulas(tmp_path):
    pytest.importorskip("matplotlib")
    folders = [write_run(tmp_path / name, serial()) for name in ("a$b", "$x_$", "c d")]
    written(plot(folders, str(tmp_path / "plots")), tmp_path / "plots")


def test_a_run_given_twice_is_drawn_once(tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure
    names_in_legends = []

    def remember(self, handles, labels, **settings):
        names_in_legends.append(labels)

    folder = write_run(tmp_path / "run", serial())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "legend", remember)
        plot([folder, f"{folder}/"], str(tmp_path / "plots"))
    assert names_in_legends == [["run"], ["run"]]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/runs/a"], ["a"]),
        (["/runs/a", "/runs/b"], ["a", "b"]),
        (["/x/run", "/y/run"], ["x/run", "y/run"]),
        (["/runs/a", "/runs/a/b"], ["a", "a/b"]),
    ],
)
def test_names_tell_runs_apart(paths, expected):
    assert names([Path(path) for path in paths]) == expected


# What is wrong


def refusal(folder: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        read(Path(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_without_a_run(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: not a run's folder, it has no metrics.jsonl"
    assert "not a run's folder" in refusal(tmp_path / "gone")


def test_a_run_that_has_only_begun(tmp_path):
    assert refusal(write_run(tmp_path / "run", [])).endswith("metrics.jsonl: no evaluation yet")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"time": 1.5, "exam', "line 3 is not JSON: "),
        ("", "line 3 is not JSON: "),
        ("[]", "line 3 is not the record of an evaluation: Expected `object`, got `array`"),
        ('{"time": 1.5}', "line 3 is not the record of an evaluation: Object missing required field `examples`"),
        (json.dumps(a_record(2, loss="low")), "Expected `float`, got `str` - at `$.loss`"),
        (json.dumps(a_record(2, staleness_histogram=[3])), "at `$.staleness_histogram[0]`"),
        (json.dumps(a_record(2, staleness_histogram=[[1, 2]], staleness_edges=[0])), "expected 2 numbers that rise"),
        (json.dumps(a_record(2, staleness_histogram=[[1]], staleness_edges=[0, 2, 2])), "staleness_edges: expected 1"),
    ],
)
def test_broken_metrics(tmp_path, line, reason):
    folder = Path(write_run(tmp_path / "run", serial(2)))
    with open(folder / "metrics.jsonl", "a") as metrics:
        metrics.write(f"{line}\n")
    said = refusal(folder)
    assert said.startswith(f"{folder / 'metrics.jsonl'}: line 3") and reason in said


def test_a_line_that_was_never_written_to_its_end(tmp_path):
    """Of a job that was killed."""
    folder = Path(write_run(tmp_path / "run", serial(3)))
    with open(folder / "metrics.jsonl", "a") as metrics:
        metrics.write('{"time": 1.5, "exam')
    assert len(read(folder)) == 3


def test_pictures_of_other_runs_do_not_stay(tmp_path):
    to = str(tmp_path / "pictures")
    for records, expected in ((with_histograms(2), True), (serial(), False)):
        plot([write_run(tmp_path / f"run{expected}", records)], to)
        assert (tmp_path / "pictures" / "staleness.png").exists() is expected


def test_metrics_that_are_no_text(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    assert "metrics.jsonl: cannot be read" in refusal(tmp_path)


def test_a_file_in_the_way(tmp_path):
    pytest.importorskip("matplotlib")
    folder = write_run(tmp_path / "run", serial())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/plots/learning\.png: cannot be written: "):
        plot([folder], str(tmp_path / "file" / "plots"))


def test_without_matplotlib(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", serial())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"matplotlib .*pip install 'distbelief\[plot\]'") as caught:
        plot([folder], str(tmp_path / "plots"))
    assert "\n" not in str(caught.value) and not (tmp_path / "plots").exists()


# The command


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    argv = [sys.executable, "-m", "distbelief", "plot", *words]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_the_command_prints_what_it_wrote(tmp_path):
    pytest.importorskip("matplotlib")
    write_run(tmp_path / "one", serial())
    write_run(tmp_path / "two", with_histograms(2))
    done = command("one", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["plots/learning.png", "plots/throughput.png", "plots/staleness.png"]
    assert all((tmp_path / line).is_file() for line in done.stdout.splitlines())
    assert command("one", "--to", "elsewhere", cwd=tmp_path).stdout.startswith("elsewhere/learning.png\n")


def test_the_command_refuses_in_one_line(tmp_path):
    done = command("gone", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"distbelief: error: {tmp_path / 'gone'}: not a run's folder, it has no metrics.jsonl\n"
