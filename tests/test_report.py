"""What rank 0 prints: plain lines into a log, a live line for somebody who watches."""

import fcntl
import io
import json
import math
import os
import struct
import termios
import types

import pytest
from report_cases import CONFIG, an_evaluation

from distbelief import report
from distbelief.algorithms.progress import Progress
from distbelief.report import Forwarder, Reporter, RunFolder, is_terminal


class Ears:
    """A listener of a user's own; one with `warned`, if asked for."""

    def __init__(self, warned: bool):
        self.heard = []
        if warned:
            self.warned = self.heard.append

    def progress(self, progress): ...

    def evaluated(self, evaluation): ...


def test_warnings_go_to_stderr_and_wipe_the_live_line(capsys, monkeypatch):
    monkeypatch.setattr(report, "is_terminal", lambda stream: True)
    out = io.StringIO()
    reporter = Reporter(None, 640, math.inf, out)
    reporter.progress(progress())
    reporter.warned("odd")
    assert out.getvalue().endswith(" \r")
    assert capsys.readouterr().err == "distbelief: warning: odd\n"


@pytest.mark.parametrize("warned", [True, False])
def test_warnings_go_to_a_listener_that_hears_them(warned, capsys):
    ears = Ears(warned)
    Forwarder(None, ears).warned("odd")
    assert ears.heard == (["odd"] if warned else [])
    assert capsys.readouterr().err == ("" if warned else "distbelief: warning: odd\n")


def progress(time=1.0, examples=32, train_loss=2.25):
    return Progress(time=time, step=1, examples=examples, train_loss=train_loss)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: clock.now."""
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(report, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Terminal(io.StringIO):
    """Text written to a pseudo-terminal of `columns`. Kept here: a real one hands it over when it pleases."""

    def __init__(self, columns):
        super().__init__()
        self._watcher, self._program = os.openpty()
        fcntl.ioctl(self._program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def fileno(self):
        return self._program

    def isatty(self):
        return os.isatty(self._program)

    def close(self):
        os.close(self._watcher)
        os.close(self._program)
        super().close()


def screen(text):
    """The lines that a terminal shows after `text`: a carriage return goes back and overwrites."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for piece in line.split("\r"):
            shown = piece + shown[len(piece) :]
        lines.append(shown.rstrip())
    return lines


def a_reporter(tmp_path, out, examples=math.inf, seconds=math.inf):
    folder = RunFolder(tmp_path)
    folder.begin(CONFIG)
    return Reporter(folder, examples, seconds, out)


def test_a_log_gets_plain_lines(tmp_path, clock):
    out = io.StringIO()
    reporter = a_reporter(tmp_path, out, examples=128)
    reporter.say("begin")
    reporter.progress(progress(time=2.0, examples=32))
    reporter.evaluated(an_evaluation())
    assert "\r" not in out.getvalue() and out.getvalue().endswith("\n")
    begin, line, evaluation = out.getvalue().splitlines()
    assert begin == "begin"
    assert line.split() == "25% 2.0 s 32 examples 16 examples/s train loss 2.2500".split()
    assert evaluation.split() == "held out at 640 examples, 12.5 s: loss 0.4567 accuracy 0.8125".split()


def test_a_log_gets_a_progress_line_every_10_seconds_at_most(tmp_path, clock):
    out = io.StringIO()
    reporter = a_reporter(tmp_path, out)
    for _ in range(100):
        reporter.progress(progress())
        clock.now += 0.5
    assert len(out.getvalue().splitlines()) == 5


def test_an_evaluation_is_news_enough_for_a_while(tmp_path, clock):
    out = io.StringIO()
    reporter = a_reporter(tmp_path, out)
    reporter.evaluated(an_evaluation())
    clock.now += 9
    reporter.progress(progress())
    assert len(out.getvalue().splitlines()) == 1
    clock.now += 1
    reporter.progress(progress())
    assert len(out.getvalue().splitlines()) == 2


@pytest.mark.parametrize(
    ("examples", "seconds", "done"),
    [(64, math.inf, "50%"), (math.inf, 4, "25%"), (64, 4, "50%"), (3200, 1.25, "80%"), (math.inf, math.inf, "0%")],
)
def test_done_is_the_share_of_whichever_limit_is_nearer(tmp_path, clock, examples, seconds, done):
    out = io.StringIO()
    a_reporter(tmp_path, out, examples, seconds).progress(progress(time=1.0, examples=32))
    assert out.getvalue().split()[0] == done


def test_progress_in_no_time_at_all(tmp_path, clock):
    a_reporter(tmp_path, io.StringIO()).progress(progress(time=0.0, examples=0))


def test_evaluations_are_printed_with_staleness_and_recorded(tmp_path, clock):
    out = io.StringIO()
    reporter = a_reporter(tmp_path, out)
    reporter.evaluated(an_evaluation(staleness=[1.0, 2.0]))
    assert out.getvalue().rstrip().endswith("staleness 1.50")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_what_shards_refused_is_printed_if_there_is_any(tmp_path, clock):
    out = io.StringIO()
    reporter = a_reporter(tmp_path, out)
    reporter.evaluated(an_evaluation(staleness=[1.0, 2.0], refused=[0, 0]))
    assert "refused" not in out.getvalue()
    reporter.evaluated(an_evaluation(staleness=[1.0, 2.0], refused=[3, 4]))
    assert out.getvalue().rstrip().endswith("staleness 1.50  refused 7")
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["refused"] for line in lines] == [[0, 0], [3, 4]]


def test_without_accuracy_there_is_none_in_the_line_but_in_the_record(tmp_path, clock):
    out = io.StringIO()
    a_reporter(tmp_path, out).evaluated(an_evaluation(accuracy=None))
    assert "loss 0.4567" in out.getvalue() and "accuracy" not in out.getvalue()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["accuracy"] is None


def test_without_a_folder_nothing_is_recorded(tmp_path, clock, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    Reporter(None, 1000, math.inf, out).evaluated(an_evaluation())
    assert "loss 0.4567" in out.getvalue() and list(tmp_path.iterdir()) == []


def test_a_terminal_gets_one_live_line_that_gives_way(tmp_path, clock):
    with Terminal(columns=100) as out:
        reporter = a_reporter(tmp_path, out, examples=128)
        reporter.say("begin")
        reporter.progress(progress(examples=64, train_loss=1234.5))
        clock.now += 1
        reporter.progress(progress(examples=96, train_loss=2.5))
        begin, live = screen(out.getvalue())
        assert begin == "begin"
        assert live.split()[0] == "75%" and live.endswith("train loss 2.5000")
        reporter.say("end")
        assert screen(out.getvalue()) == ["begin", "end", ""]


def test_a_live_line_comes_five_times_a_second_at_most(tmp_path, clock):
    with Terminal(columns=100) as out:
        reporter = a_reporter(tmp_path, out)
        for _ in range(100):
            reporter.progress(progress())
            clock.now += 1 / 16
        assert out.getvalue().count("\r") == 25


@pytest.mark.parametrize("columns", [80, 1])
def test_a_terminal_with_columns_is_watched(columns):
    with Terminal(columns) as out:
        assert is_terminal(out)


def test_a_terminal_without_columns_is_a_launchers():
    with Terminal(columns=0) as out:
        assert out.isatty() and not is_terminal(out)


def test_files_and_objects_that_only_write_are_no_terminals(tmp_path):
    with open(tmp_path / "log", "w") as log:
        assert not is_terminal(log)
    assert not is_terminal(log)  # closed
    assert not is_terminal(io.StringIO())
    assert not is_terminal(types.SimpleNamespace(write=print))
    assert not is_terminal(types.SimpleNamespace(isatty=lambda: True))
