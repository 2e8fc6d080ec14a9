"""Each source alone: directories, programs and a web server made for the test, never the real ones."""

import gzip
import hashlib
import os
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from distbelief.data import fashion_mnist
from distbelief.data import fashion_mnist_sources as sources
from distbelief.data.fashion_mnist_sources import SOURCES, Unavailable, from_directory, from_package, from_web
from distbelief.errors import UserError

NAMES = ("one.gz", "two.gz")


@pytest.fixture
def into(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def arrived(into):
    return {path.name: path.read_bytes() for path in into.iterdir()}


def test_the_machine_is_asked_before_the_web():
    assert [source.name.split()[0] for source in SOURCES] == ["Debian's", "apt-get", "apt-get", "the", "the"]


def test_a_directory_is_copied(tmp_path, into):
    (tmp_path / "installed").mkdir()
    for name in (*NAMES, "other.gz"):
        (tmp_path / "installed" / name).write_bytes(name.encode())
    from_directory(NAMES, into, directory=tmp_path / "installed")
    assert arrived(into) == {"one.gz": b"one.gz", "two.gz": b"two.gz"}


def test_a_directory_that_is_absent_or_lacks_a_file_says_so(tmp_path, into):
    with pytest.raises(Unavailable, match=f"no directory {tmp_path / 'absent'}"):
        from_directory(NAMES, into, directory=tmp_path / "absent")
    with pytest.raises(OSError, match="one.gz"):
        from_directory(NAMES, into, directory=tmp_path)


APT_GET = """#!/bin/sh
echo "$@" >> "{log}"
for word; do last=$word; done
case $last in
update) {update} ;;
*) {download} ;;
esac
"""
# Unpacks a "package" by writing the two files to the directory that is its last argument.
DPKG_DEB = """#!/bin/sh
for word; do last=$word; done
mkdir -p "$last{installed}" && cd "$last{installed}" && echo 1 > one.gz && echo 2 > two.gz
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put an apt-get and a dpkg-deb of our own first on the path; give back a function that sets what they do."""
    folder = tmp_path / "programs"
    folder.mkdir()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(sources.tempfile, "tempdir", str(scratch))

    def install(download="touch dataset-fashion-mnist_1_all.deb", update=":", dpkg_deb=DPKG_DEB):
        texts = {
            "apt-get": APT_GET.format(log=tmp_path / "log", download=download, update=update),
            "dpkg-deb": dpkg_deb.replace("{installed}", str(sources.INSTALLED)),
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    yield install
    assert os.listdir(scratch) == [], "a source left its own files behind"


def commands(tmp_path):
    return (tmp_path / "log").read_text().splitlines()


def test_the_package_is_downloaded_and_unpacked(tmp_path, into, programs):
    programs()
    from_package(NAMES, into)
    assert arrived(into) == {"one.gz": b"1\n", "two.gz": b"2\n"}
    (command,) = commands(tmp_path)
    assert command.endswith("download dataset-fashion-mnist") and "Dir::State" not in command


def test_own_lists_are_filled_first_and_used(tmp_path, into, programs):
    programs(
        update='for o; do case $o in -oDir::State=*) echo list > "${o#*=}/lists/partial/x" || exit 9 ;; esac; done'
    )
    from_package(NAMES, into, own_lists=True)
    assert arrived(into) == {"one.gz": b"1\n", "two.gz": b"2\n"}
    update, download = commands(tmp_path)
    assert update.endswith(" update") and download.endswith(" download dataset-fashion-mnist")
    assert update.removesuffix("update") == download.removesuffix("download dataset-fashion-mnist")
    assert "-oDir::State=" in update and "-oDir::Cache=" in update and "-oDebug::NoLocking=1" in update


def test_an_update_that_fails_in_part_is_no_verdict(into, programs):
    programs(update="echo 'E: one archive is away' >&2; exit 100")
    from_package(NAMES, into, own_lists=True)
    assert set(arrived(into)) == set(NAMES)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (
            {"download": "echo 'E: Unable to locate package' >&2; exit 100"},
            "dataset-fashion-mnist: E: Unable to locate",
        ),
        ({"download": "exit 7"}, "apt-get download dataset-fashion-mnist: exit code 7"),
        ({"download": ":"}, "apt-get download left no package"),
        ({"dpkg_deb": "#!/bin/sh\necho 'not a Debian archive' >&2\nexit 2\n"}, "not a Debian archive"),
        (
            {"update": "echo 'W: no network' >&2", "download": "echo 'E: no package' >&2; exit 100"},
            "apt-get update: W: no network; apt-get download dataset-fashion-mnist: E: no package",
        ),
    ],
)
def test_a_failing_program_is_quoted(into, programs, behaviour, reason):
    programs(**behaviour)
    with pytest.raises(Unavailable) as caught:
        from_package(NAMES, into, own_lists=True)
    assert reason in str(caught.value)
    assert arrived(into) == {}


def test_a_package_without_the_files_says_so(into, programs):
    programs(dpkg_deb='#!/bin/sh\nmkdir -p "$3{installed}"\n')
    with pytest.raises(OSError, match="one.gz"):
        from_package(NAMES, into)


def test_a_machine_without_apt_says_so(into, programs, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="no apt-get on this machine"):
        from_package(NAMES, into)


def test_a_program_that_hangs_is_stopped(into, programs, monkeypatch):
    monkeypatch.setattr(sources, "_COMMAND_DEADLINE", 0.2)
    programs(download="exec sleep 30")
    with pytest.raises(Unavailable, match="apt-get download dataset-fashion-mnist not done after 0 s"):
        from_package(NAMES, into)


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/short/one.gz":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
        elif self.path == "/silent/one.gz":
            self.server.released.wait(20)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path, monkeypatch):
    """The address of a web server on a free port, which serves the directory `tmp_path/served`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=tmp_path / "served"))
    server.released = threading.Event()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_come_over_the_web(tmp_path, into, web):
    served = {name: os.urandom(300_000) for name in NAMES}  # more than one block
    for name, content in served.items():
        (tmp_path / "served" / name).write_bytes(content)
    from_web(NAMES, into, base=web)
    assert arrived(into) == served


def test_a_file_the_server_lacks_leaves_none(into, web):
    with pytest.raises(Unavailable, match="one.gz: HTTP Error 404"):
        from_web(NAMES, into, base=web)
    assert arrived(into) == {}


def test_a_server_that_falls_silent_is_left(into, web, monkeypatch):
    monkeypatch.setattr(sources, "_SILENCE_DEADLINE", 0.2)
    with pytest.raises(Unavailable, match="one.gz: timed out"):
        from_web(NAMES, into, base=web + "silent/")


def test_a_server_that_drips_for_ever_is_left(tmp_path, into, web, monkeypatch):
    monkeypatch.setattr(sources, "_DOWNLOAD_DEADLINE", -1.0)
    (tmp_path / "served" / "one.gz").write_bytes(b"x")
    with pytest.raises(Unavailable, match="one.gz not complete"):
        from_web(NAMES, into, base=web)


def test_nobody_listening_is_said(into, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        with pytest.raises(Unavailable, match="one.gz: .*refused"):
            from_web(NAMES, into, base=f"http://127.0.0.1:{taken.getsockname()[1]}/")


@pytest.mark.parametrize("path", ["good/", "wrong/", "short/", "absent/"])
def test_provide_takes_only_right_files_from_the_web(tmp_path, web, monkeypatch, path):
    monkeypatch.setattr(fashion_mnist, "CONTENTS", {name: hashlib.sha256(b"right").hexdigest() for name in NAMES})
    for folder, content in ("good", b"right"), ("wrong", b"wrong"):
        (tmp_path / "served" / folder).mkdir()
        for name in NAMES:
            (tmp_path / "served" / folder / name).write_bytes(gzip.compress(content))
    source = sources.Source("the web", partial(from_web, base=web + path))
    to = tmp_path / "to"
    if path == "good/":
        fashion_mnist.provide(to, sources=[source], say=lambda line: None)
        assert set(arrived(to)) == set(NAMES)
    else:
        reason = {"wrong/": "one.gz has SHA-256", "short/": "one.gz is damaged", "absent/": "HTTP Error 404"}[path]
        with pytest.raises(UserError, match=reason):
            fashion_mnist.provide(to, sources=[source])
        assert arrived(to) == {}
