"""Fashion-MNIST, the dataset of the examples: 60,000 training and 10,000 test images of 28x28 pixels, 10 classes.

Published by Zalando Research under the MIT licence (Xiao, Rasul and Vollgraf, 2017). Nothing of it is kept here:
`provide` brings the four files from wherever this machine can get them.
"""

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from distbelief.data.fashion_mnist_sources import SOURCES, Source, Unavailable
from distbelief.errors import UserError

# SHA-256 of the contents *after* decompression: copies are compressed by different programs, the data is the same.
CONTENTS = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def provide(to: Path, *, sources: Sequence[Source] | None = None, say: Callable[[str], object] = print) -> Path:
    """Make sure that the four gzipped IDX files of Fashion-MNIST are in the directory `to`, and return it.

    Files that are there and whole stay as they are. The others come from the first of `sources` (default:
    `fashion_mnist_sources.SOURCES`) that has them with the right contents; each appears under its name complete
    and verified, or not at all. `say` is told, in one line, where the files came from.

    Local; run it on one rank. Raises UserError if no source works, if `to` cannot be written, or if it holds a
    sound file of one of the names with other contents (MNIST's files have the same names): that is not touched.
    """
    to = Path(to)
    sources = SOURCES if sources is None else sources
    try:
        to.mkdir(parents=True, exist_ok=True)
        missing = [name for name in CONTENTS if not _is_whole(to / name)]
        failures = []
        for source in sources:
            if not missing:
                break
            taken, reasons = _take(source, missing, to)
            missing = [name for name in missing if name not in taken]
            failures += reasons
            if taken:
                say(f"Fashion-MNIST: {len(taken)} files from {source.name}, verified, in {to}")
    except OSError as error:
        raise UserError(f"{to}: Fashion-MNIST cannot be put there ({error.strerror or error})") from None
    if missing:
        raise UserError(
            f"Fashion-MNIST: {', '.join(missing)} could not be found; tried {'; '.join(failures) or 'nothing'}; "
            f"install Debian's package dataset-fashion-mnist, or put the four files into {to}"
        )
    return to


def _is_whole(path: Path) -> bool:
    """Whether one of the files is there with the right contents; a damaged one counts as absent."""
    try:
        found = _sha256_inside(path)
    except (FileNotFoundError, _Damaged):
        return False
    if found != CONTENTS[path.name]:
        raise UserError(
            f"{path}: not Fashion-MNIST: its contents have SHA-256 {found}, expected {CONTENTS[path.name]}; "
            "move the file away or name another directory"
        )
    return True


def _take(source: Source, missing: Sequence[str], to: Path) -> tuple[set[str], list[str]]:
    """Move what `source` has of the missing files to their place; return their names, and what went wrong."""
    # Inside `to`, hence on the same file system, so that a verified file moves in one step.
    with tempfile.TemporaryDirectory(prefix=".fashion-mnist-", dir=to) as name:
        arrived = Path(name)
        taken, failures = set(), []
        try:
            source.fetch(missing, arrived)
        except (OSError, Unavailable) as error:
            failures.append(f"{source.name} ({_line(error)})")
        for file in missing:
            try:
                found = _sha256_inside(arrived / file)
            except FileNotFoundError:
                if not failures:  # or the source has said why
                    failures.append(f"{source.name} (gave no {file})")
                continue
            except _Damaged as error:
                failures.append(f"{source.name} ({file} is damaged: {_line(error)})")
                continue
            if found != CONTENTS[file]:
                failures.append(f"{source.name} ({file} has SHA-256 {found} inside, expected {CONTENTS[file]})")
                continue
            os.replace(arrived / file, to / file)
            taken.add(file)
    return taken, failures


class _Damaged(Exception):
    """A file that is not one whole gzip stream."""


def _sha256_inside(path: Path) -> str:
    """SHA-256, in hexadecimal, of what a gzip file decompresses to."""
    digest = hashlib.sha256()
    if path.stat().st_size == 0:
        raise _Damaged("empty")  # to gzip, no bytes are a sound stream of no bytes
    try:
        with gzip.open(path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _Damaged(_line(error)) from None
    return digest.hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
