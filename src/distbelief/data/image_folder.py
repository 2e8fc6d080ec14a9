"""Folders of pictures, one folder for each class, decoded ahead of their use.

Pillow, the extra `images`, is imported when a folder is opened.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from distbelief.data.source import Features, Source
from distbelief.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Pictures that a reader keeps decoded, waiting to be read.
MOST_AHEAD = 2048

_MODES = {1: "L", 3: "RGB"}  # Pillow's names, by channels


class ImageFolder(Source):
    """`folder/CLASS/PICTURE`: classes in the order of their names, pictures in the order of theirs.

    An example is `[height, width, channels]`, uint8: the picture scaled to cover that size, and cut to it about its
    middle. Pictures are read when they are wanted, never all at once.
    """

    def __init__(self, folder: str | Path, shape: tuple[int, int, int]):
        """`shape`: height, width and channels (1: grey, 3: colours) of an example.

        Local. Raises UserError if Pillow is missing, or there is no such folder, class or picture.
        """
        self._decode = _decoder(folder, shape)
        self.inputs_name = self.labels_name = str(folder)
        self._shape = shape
        self.classes = _folders(folder)
        self._pictures: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            found = _pictures(Path(folder) / name)
            self._pictures += found
            labels += [label] * len(found)
        self.labels = np.array(labels, np.int64)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape

    def reader(self, features: Features | None = None) -> "ImageReader":
        """A new one, with threads of its own. Pictures are decoded whole, whatever is wanted of them."""
        return ImageReader(self._pictures, features or (0, self.features), self._decode)


class ImageReader:
    """Decodes the pictures of the next batch in threads while the present one is computed with (data.reader.Reader)."""

    def __init__(self, pictures: list[Path], features: Features, decode: Callable[[Path], np.ndarray]):
        self._pictures = pictures
        self._features = features
        self._decode = decode
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[int, Future] = {}

    def will_need(self, rows: np.ndarray) -> None:
        if self._pool is None:  # not before: a rank opens datasets that it may never read
            self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "pictures")
        for row in map(int, rows):
            if row not in self._ahead:
                self._ahead[row] = self._pool.submit(self._decode, self._pictures[row])
        while len(self._ahead) > MOST_AHEAD:  # of a portion that was taken away, nobody reads them
            self._ahead.pop(next(iter(self._ahead))).cancel()

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.will_need(rows)
        start, stop = self._features
        source_nf = np.empty((len(rows), stop - start), np.uint8)
        for place, row in enumerate(map(int, rows)):
            ahead = self._ahead.pop(row, None)
            picture = self._decode(self._pictures[row]) if ahead is None else ahead.result()
            source_nf[place] = picture.reshape(-1)[start:stop]
        return source_nf, np.arange(len(rows))


def _decoder(folder: str | Path, shape: tuple[int, int, int]) -> Callable[[Path], np.ndarray]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UserError(
            f"{folder}: pictures need Pillow, expected it installed: pip install 'distbelief[images]'"
        ) from None
    height, width, channels = shape
    if channels not in _MODES:
        raise UserError(f"{folder}: pictures of {channels} channels, expected 1 (grey) or 3 (colours)")

    def decode(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as picture:
                picture.draft(_MODES[channels], (width, height))  # lets JPEG skip detail that scaling would drop
                fitted = ImageOps.fit(picture.convert(_MODES[channels]), (width, height))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: not a picture that can be read ({error}); expected a whole image file") from None
        return np.asarray(fitted, np.uint8)

    return decode


def _folders(folder: str | Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); expected a folder of pictures") from None
    if not names:
        raise UserError(f"{folder}: has no folders in it, expected one for each class")
    return names


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{folder}: no pictures, expected some in every class ({' '.join(SUFFIXES)})")
    return found
