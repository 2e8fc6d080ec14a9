"""What the processors of some ranks lack, and what these do instead."""

import itertools
from collections.abc import Sequence

from distbelief.comm.endpoint import Endpoint
from distbelief.launch.agreement import gather


def lacking(endpoint: Endpoint | None, words: str | None) -> list[str]:
    """Lines for rank 0 to say, from each rank's `words` (processor.prepare). Collective over all ranks."""
    if endpoint is None or endpoint.size == 1:
        return [words] if words else []
    said = gather(endpoint, words or "")
    return [] if said is None else told(said)


def told(said: Sequence[str]) -> list[str]:
    """A line for each lack among what the ranks `said`; it names those that have it, unless all do. Local."""
    lines = []
    for words in dict.fromkeys(filter(None, said)):
        ranks = [rank for rank, other in enumerate(said) if other == words]
        lines.append(words if len(ranks) == len(said) else f"{_names(ranks)}: {words}")
    return lines


def _names(ranks: Sequence[int]) -> str:
    """rank 3; ranks 1, 4 to 7."""
    runs = []
    for _, run in itertools.groupby(enumerate(ranks), lambda numbered: numbered[1] - numbered[0]):
        run = [rank for _, rank in run]
        runs.append(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)))
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(runs)}"
