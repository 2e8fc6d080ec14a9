"""The batch of the moment: all portions, or some of them that change slowly."""

from distbelief.algorithms.sandblaster.settings import ChangingBatch


class Batches:
    """A window that slides over the portions, round and round. Local.

    Consecutive batches share part of their portions, so replicas keep most of theirs (Berahas, Nocedal, Takac 2016).
    """

    def __init__(self, portions: int, changing: ChangingBatch | None = None):
        """None: the batch is all portions, always."""
        self._portions = portions
        self._first = 0
        self._size = portions
        self._every = 0
        if changing is not None:
            self._size = max(round(changing.fraction * portions), 1)
            self._stride = max(self._size - round(changing.overlap * self._size), 1)
            self._every = changing.every if self._size < portions else 0

    @property
    def current(self) -> list[int]:
        """The portions of the batch."""
        return [(self._first + place) % self._portions for place in range(self._size)]

    def advance(self, steps: int) -> bool:
        """Told of the number of accepted steps so far: change the batch if it is time. Returns whether it has."""
        if not self._every or steps % self._every:
            return False
        self._first = (self._first + self._stride) % self._portions
        return True
