"""Where the files of Fashion-MNIST can come from.

A source is a function that puts those of the named files it can get into an empty directory. It verifies nothing
and need not tidy up: its caller does both. What keeps it from succeeding it raises as `Unavailable` or OSError.
"""

import http.client
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
UPSTREAM = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)

# Seconds, generous for 31 MB: a wait that has not ended by then will not.
_COMMAND_DEADLINE = 600.0
_DOWNLOAD_DEADLINE = 600.0
_SILENCE_DEADLINE = 30.0


class Unavailable(Exception):
    """A source cannot give the files; the text says why."""


class Source(NamedTuple):
    """A place to get files from: its name for messages, and `fetch(names, into)`."""

    name: str
    fetch: Callable[[Sequence[str], Path], None]


def from_directory(names: Sequence[str], into: Path, *, directory: Path = INSTALLED) -> None:
    """Copy the files from a directory, by default the one of Debian's package."""
    if not directory.is_dir():
        raise Unavailable(f"no directory {directory}")
    for name in names:
        shutil.copyfile(directory / name, into / name)


def from_package(names: Sequence[str], into: Path, *, own_lists: bool = False) -> None:
    """Download Debian's package and unpack it, without installing it and without root.

    With `own_lists`, the lists of packages are downloaded first and kept apart from the machine's: those of a fresh
    machine or container are empty, and only root may fill them.
    """
    with tempfile.TemporaryDirectory(prefix="distbelief-apt-") as scratch:
        options = [
            f"-oAcquire::http::Timeout={_SILENCE_DEADLINE:.0f}",
            # Otherwise root's downloads are written by a user who cannot see a private directory of root's.
            "-oAPT::Sandbox::User=root",
        ]
        complaint = ""
        if own_lists:
            state, cache = Path(scratch, "state"), Path(scratch, "cache")
            for directory in (state / "lists" / "partial", cache / "archives" / "partial"):
                directory.mkdir(parents=True)
            options += [
                f"-oDir::State={state}",
                f"-oDir::State::Lists={state / 'lists'}",  # or a site's own setting of it would win
                f"-oDir::Cache={cache}",
                "-oDebug::NoLocking=1",
            ]
            # No verdict yet: one archive of several may be out of reach, and the package in the lists all the same.
            _, complaint = _run(["apt-get", *options, "update"], scratch)
        done, reason = _run(["apt-get", *options, "download", PACKAGE], scratch)
        archives = list(Path(scratch).glob(f"{PACKAGE}_*.deb"))
        if not done or not archives:
            raise Unavailable("; ".join(filter(None, (complaint, reason or "apt-get download left no package"))))
        unpacked = Path(scratch, "unpacked")
        done, reason = _run(["dpkg-deb", "-x", str(archives[0]), str(unpacked)], scratch)
        if not done:
            raise Unavailable(reason)
        from_directory(names, into, directory=unpacked / INSTALLED.relative_to("/"))


def from_web(names: Sequence[str], into: Path, *, base: str) -> None:
    """Download the files from below the address `base`, which ends in a slash. Proxies of the environment are used."""
    end = time.monotonic() + _DOWNLOAD_DEADLINE
    for name in names:
        try:
            with (
                urllib.request.urlopen(base + name, timeout=_SILENCE_DEADLINE) as response,
                open(into / name, "wb") as file,
            ):
                while block := response.read(1 << 18):
                    file.write(block)
                    if time.monotonic() > end:
                        raise Unavailable(f"{name} not complete after {_DOWNLOAD_DEADLINE:.0f} s")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{name}: {str(error) or type(error).__name__}") from None


def _run(command: Sequence[str], directory: str) -> tuple[bool, str]:
    """Run a command in a directory; return whether it succeeded, and its first complaint, in one line."""
    shown = " ".join(word for word in command if not word.startswith("-o"))
    # A file, not a pipe: after a kill, children of the command could hold a pipe open and make us wait for them.
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        try:
            status = subprocess.run(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                timeout=_COMMAND_DEADLINE,
            ).returncode
        except FileNotFoundError:
            return False, f"no {command[0]} on this machine"
        except subprocess.TimeoutExpired:
            return False, f"{shown} not done after {_COMMAND_DEADLINE:.0f} s"
        complaints.seek(0)
        first = next(filter(None, map(str.strip, complaints)), "" if status == 0 else f"exit code {status}")
    return status == 0, f"{shown}: {first}" if first else ""


SOURCES = (
    Source("Debian's installed package", from_directory),
    Source("apt-get download", from_package),
    Source("apt-get download with lists of its own", partial(from_package, own_lists=True)),
    *(Source(f"the web at {base}", partial(from_web, base=base)) for base in UPSTREAM),
)
