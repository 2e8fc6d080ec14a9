"""`provide`, with four small files in place of the real ones and sources made for the occasion."""

import gzip
import hashlib

import pytest

from distbelief.data import fashion_mnist
from distbelief.data.fashion_mnist import CONTENTS, provide
from distbelief.data.fashion_mnist_sources import Source, Unavailable
from distbelief.errors import UserError

NAMES = tuple(CONTENTS)
INSIDE = {name: f"the contents of {name}".encode() * 50 for name in NAMES}


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in INSIDE.items()}
    monkeypatch.setattr(fashion_mnist, "CONTENTS", digests)


@pytest.fixture
def said():
    return []


def giving(files, name="a source", asked=None):
    """A source that has these files (name to bytes), and notes what it is asked for."""

    def fetch(names, into):
        if asked is not None:
            asked.append(list(names))
        for file in names:
            if file in files:
                (into / file).write_bytes(files[file])

    return Source(name, fetch)


def failing(error, name="a broken source"):
    def fetch(names, into):
        (into / names[0]).write_bytes(b"half")
        raise error

    return Source(name, fetch)


WHOLE = {name: gzip.compress(content) for name, content in INSIDE.items()}


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_files_arrive_whole_and_nothing_else_does(tmp_path, said):
    to = tmp_path / "new" / "folder"
    assert provide(to, sources=[giving(WHOLE)], say=said.append) == to
    assert contents(to) == WHOLE
    assert said == [f"Fashion-MNIST: 4 files from a source, verified, in {to}"]


def test_whole_files_are_left_alone_and_no_source_is_asked(tmp_path, said):
    recompressed = {name: gzip.compress(content, compresslevel=1, mtime=1) for name, content in INSIDE.items()}
    assert recompressed != WHOLE
    for name, content in recompressed.items():
        (tmp_path / name).write_bytes(content)
    asked = []
    provide(tmp_path, sources=[giving(WHOLE, asked=asked)], say=said.append)
    assert contents(tmp_path) == recompressed and asked == said == []


def test_only_missing_and_damaged_files_are_fetched(tmp_path, said):
    (tmp_path / NAMES[0]).write_bytes(WHOLE[NAMES[0]])
    (tmp_path / NAMES[1]).write_bytes(WHOLE[NAMES[1]][:-9])
    (tmp_path / NAMES[2]).write_bytes(b"")
    asked = []
    provide(tmp_path, sources=[giving(WHOLE, asked=asked)], say=said.append)
    assert contents(tmp_path) == WHOLE
    assert asked == [list(NAMES[1:])]


def test_sources_are_tried_in_order_and_complete_each_other(tmp_path, said):
    asked = []
    half = {name: WHOLE[name] for name in NAMES[:2]}
    sources = [
        failing(Unavailable("no such thing")),
        giving(half, "half", asked),
        giving(WHOLE, "all", asked),
        giving(WHOLE, "late", asked),
    ]
    provide(tmp_path, sources=sources, say=said.append)
    assert contents(tmp_path) == WHOLE
    assert asked == [list(NAMES), list(NAMES[2:])]
    assert [line.split(",")[0] for line in said] == [
        "Fashion-MNIST: 2 files from half",
        "Fashion-MNIST: 2 files from all",
    ]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (failing(Unavailable("no such\nthing")), "a broken source (no such thing)"),
        (failing(OSError(28, "No space left on device")), "No space left on device"),
        (giving({name: gzip.compress(b"other") for name in NAMES}), "has SHA-256 d9298a10"),
        (giving({name: content[:-5] for name, content in WHOLE.items()}), "train-images-idx3-ubyte.gz is damaged"),
        (giving({name: b"<html>" for name in NAMES}), "is damaged: Not a gzipped file"),
    ],
)
def test_when_nothing_works_one_line_says_what_was_tried_and_nothing_is_left(tmp_path, source, reason):
    with pytest.raises(UserError) as caught:
        provide(tmp_path, sources=[source, giving({}, "nobody")])
    text = str(caught.value)
    assert reason in text and "\n" not in text and all(name in text for name in NAMES)
    assert f"install Debian's package dataset-fashion-mnist, or put the four files into {tmp_path}" in text
    assert contents(tmp_path) == {}


def test_a_source_that_lacks_files_without_a_word_is_named(tmp_path):
    with pytest.raises(UserError, match=r"tried nobody \(gave no train-images-idx3-ubyte.gz"):
        provide(tmp_path, sources=[giving({}, "nobody")])


def test_good_files_of_a_broken_source_are_kept(tmp_path, said):
    files = WHOLE | {NAMES[3]: WHOLE[NAMES[3]][:-1]}
    with pytest.raises(UserError, match=f"Fashion-MNIST: {NAMES[3]} could not be found"):
        provide(tmp_path, sources=[giving(files)], say=said.append)
    assert contents(tmp_path) == {name: WHOLE[name] for name in NAMES[:3]}


def test_sound_files_with_other_contents_are_not_overwritten(tmp_path):
    mnist = gzip.compress(b"these are digits")
    (tmp_path / NAMES[2]).write_bytes(mnist)
    with pytest.raises(UserError, match=f"{NAMES[2]}: not Fashion-MNIST.*move the file away") as caught:
        provide(tmp_path, sources=[giving(WHOLE)])
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {NAMES[2]: mnist}


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=f"{tmp_path / 'file'}: Fashion-MNIST cannot be put there"):
        provide(tmp_path / "file", sources=[giving(WHOLE)])


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        provide(tmp_path, sources=[failing(KeyboardInterrupt())])
    assert contents(tmp_path) == {}
