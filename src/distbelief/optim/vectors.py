"""Named vectors in this process's memory: all of them, or one shard's interval of each."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from distbelief.kernels import combine, gram
from distbelief.optim.space import PARAMETERS, Combine, Command, Dots, Fill, Multiply, Swap


class Vectors:
    """A `Space` in memory. On a shard: its interval; the answers of all shards add up to those of the whole."""

    def __init__(
        self,
        names: Iterable[str],
        size: int,
        dtype: np.dtype | type = np.float64,
        given: Mapping[str, np.ndarray] | None = None,
    ):
        """Zero vectors of shape (size,), but for those that are `given` (of that shape and dtype): a shard's window."""
        given = dict(given or {})
        assert all(vector.shape == (size,) and vector.dtype == dtype for vector in given.values())
        rest = [name for name in names if name not in given]
        self._vectors = given | dict(zip(rest, np.zeros((len(rest), size), dtype), strict=True))

    def __getitem__(self, name: str) -> np.ndarray:
        """The vector that `name` stands for now, shape (size,): a view; Swap changes what a name stands for."""
        return self._vectors[name]

    def run(self, commands: Sequence[Command]) -> list[np.ndarray]:
        """Carry out `commands` in order; see `Space.run`. Local."""
        return [answer for command in commands if (answer := self._carry_out(command)) is not None]

    def _carry_out(self, command: Command) -> np.ndarray | None:
        vectors = self._vectors
        match command:
            case Dots(rows, columns):
                answer = np.empty((len(rows), len(columns)))
                gram([vectors[name] for name in rows], [vectors[name] for name in columns], answer)
                return answer
            case Combine(target, (1.0,), (source,)):
                np.copyto(vectors[target], vectors[source])  # past the caches
            case Combine(target, coefficients, names):
                combine(np.array(coefficients, np.float64), [vectors[name] for name in names], vectors[target])
            case Multiply(target, left, right):
                np.multiply(vectors[left], vectors[right], out=vectors[target])
            case Fill(target, value):
                vectors[target].fill(value)
            case Swap(one, other):
                assert PARAMETERS not in (one, other)
                vectors[one], vectors[other] = vectors[other], vectors[one]
        return None
