"""Intervals: rows of a layer, elements of a flat vector."""

from typing import NamedTuple


class Interval(NamedTuple):
    """start..stop-1; empty if stop is not above start."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return max(self.stop - self.start, 0)

    def within(self, other: "Interval") -> bool:
        """Whether all of it lies in `other`; an empty one lies in any."""
        return not self.size or (other.start <= self.start and self.stop <= other.stop)

    def common(self, other: "Interval") -> "Interval":
        """What lies in both."""
        start = max(self.start, other.start)
        return Interval(start, max(min(self.stop, other.stop), start))

    def without(self, other: "Interval") -> list["Interval"]:
        """What lies in this one only: the part before `other`, the part behind it, or both."""
        if not self.common(other).size:
            return [self] if self.size else []
        parts = Interval(self.start, other.start), Interval(other.stop, self.stop)
        return [part for part in parts if part.size]

    def hull(self, other: "Interval") -> "Interval":
        """The smallest interval around both."""
        if not self.size or not other.size:
            return self if self.size else other
        return Interval(min(self.start, other.start), max(self.stop, other.stop))

    def seen_from(self, origin: int) -> slice:
        """As a slice of an array whose first element is `origin`."""
        return slice(self.start - origin, self.start - origin + self.size)
