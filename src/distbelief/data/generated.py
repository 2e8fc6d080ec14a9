"""Examples that are made, not read: of any shape and number of classes, with something to learn in them.

For benchmarks, and to try a network of the paper's size without the paper's data.
"""

import math

import numpy as np

from distbelief.data.source import Features, Source

# An example is its class's pattern plus noise; patterns are mixtures of so many random bases, so that 21,000 classes
# of 30,000 numbers take megabytes, not gigabytes.
BASES = 32
# Noise per number against a pattern of variance 1: single numbers tell little of the class, all together much.
NOISE = 2.0

PER_COUNT = 16  # numbers of 16 bits that Philox makes of one value of its counter

_LABELS, _BASES, _CODES, _NOISES = range(4)  # streams of random numbers


class Generated(Source):
    """`examples` examples of `shape` in `classes` classes, the same everywhere (but for rounding) for one seed.

    Classes are random. x = sum over bases of code[class, base] basis[base] + noise, with codes and bases nearly
    standard normal (codes divided by the square root of BASES), noise uniform of standard deviation NOISE.
    """

    def __init__(self, examples: int, shape: tuple[int, ...], classes: int, seed: int, stream: int = 0):
        """`stream`: of one seed, another one has other examples of the same classes: training and test. Local."""
        self.inputs_name = self.labels_name = "generated examples"
        self._shape = tuple(shape)
        self._seed = seed
        self._stream = stream
        self.labels = (_raw(seed, _LABELS, stream).random_raw(examples) % np.uint64(classes)).astype(np.int64)
        self._bases_bf = _normal(_raw(seed, _BASES), BASES * self.features).reshape(BASES, self.features)
        codes = _normal(_raw(seed, _CODES), classes * BASES).reshape(classes, BASES)
        self._codes_cb = codes / np.float32(math.sqrt(BASES))

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def reader(self, features: Features | None = None) -> "GeneratedReader":
        """Makes only what is asked for."""
        return GeneratedReader(self, *(features or (0, self.features)))

    def make(self, rows: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Features start..stop-1 of the examples `rows`, int64 [n]: float32 [n, stop - start]. Local."""
        source_nf = self._codes_cb[self.labels[rows]] @ self._bases_bf[:, start:stop]
        skipped, first = divmod(start, PER_COUNT)
        for place, row in enumerate(map(int, rows)):
            source = _raw(self._seed, _NOISES, self._stream, row)
            source.advance(skipped)
            # 16 random bits for each number: uniform on -1..1 times sqrt(3) has variance 1.
            raw = source.random_raw(-(-(first + stop - start) // 4)).view(np.uint16)[first : first + stop - start]
            source_nf[place] += (raw * np.float32(2**-15) - 1) * np.float32(NOISE * math.sqrt(3))
        return source_nf


class GeneratedReader:
    """Makes some features of each example when they are read (data.reader.Reader)."""

    def __init__(self, source: Generated, start: int, stop: int):
        self._source = source
        self._features = start, stop

    def will_need(self, rows: np.ndarray) -> None:
        """Nothing has to be brought in."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._source.make(rows, *self._features), np.arange(len(rows))


def _raw(seed: int, *key: int) -> np.random.Philox:
    # Raw output is what NumPy promises never to change.
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=key))


def _normal(source: np.random.Philox, count: int) -> np.ndarray:
    """Nearly normal numbers, float32 `[count]`: sums of four uniform ones, scaled to variance 1."""
    raw = source.random_raw(count).view(np.uint16).reshape(count, 4)
    return (raw.sum(1, dtype=np.int64) * 2.0**-16 - 2).astype(np.float32) * np.float32(math.sqrt(3))
