"""A program: commands on vectors (optim.space) as they travel to the shards, and the answers as they come back.

One message of a header, a record for each command, all coefficients, and all names, as places in a list that both
sides have. Nothing is pickled.
"""

from collections.abc import Sequence

import numpy as np

from distbelief.optim.space import Combine, Command, Dots, Fill, Multiply, Swap

DOTS, COMBINE, MULTIPLY, FILL, SWAP = range(5)

HEADER = np.dtype([("commands", "<i4"), ("coefficients", "<i4"), ("names", "<i4")])
COMMAND = np.dtype(
    [
        ("kind", "<i4"),
        ("coefficients", "<i4"),  # that belong to it, in order
        ("names", "<i4"),  # likewise
        ("rows", "<i4"),  # of DOTS: names that are rows; the others are columns
    ]
)


def encode(commands: Sequence[Command], names: Sequence[str]) -> np.ndarray:
    """The message for `commands`, uint8. Raises ValueError for a vector that is not among `names`."""
    records = np.zeros(len(commands), COMMAND)
    coefficients: list[float] = []
    used: list[str] = []
    for place, command in enumerate(commands):
        kind, own_coefficients, own_names = _parts(command)
        rows = len(command.rows) if kind == DOTS else 0
        records[place] = (kind, len(own_coefficients), len(own_names), rows)
        coefficients += own_coefficients
        used += own_names
    places = {name: place for place, name in enumerate(names)}
    if strange := [name for name in used if name not in places]:
        raise ValueError(f"no vector is called {strange[0]}; there are {', '.join(names)}")
    header = np.array([(len(commands), len(coefficients), len(used))], HEADER)
    pieces = [header, records, np.array(coefficients, "<f8"), np.array([places[name] for name in used], "<i4")]
    return np.concatenate([piece.view(np.uint8) for piece in pieces])


def decode(message: np.ndarray, names: Sequence[str]) -> list[Command]:
    """The commands in a message that `encode` has made with the same `names`."""
    count, coefficients, used = message[: HEADER.itemsize].view(HEADER)[0].item()
    ends = np.cumsum([HEADER.itemsize, count * COMMAND.itemsize, coefficients * 8, used * 4])
    records, factors, places = (
        message[first:last].view(kind)
        for first, last, kind in zip(ends, ends[1:], (COMMAND, "<f8", "<i4"), strict=False)
    )
    numbers, words = factors.tolist(), [names[place] for place in places]
    commands = []
    for record in records:
        kind, own_coefficients, own_names, rows = record.item()
        commands.append(_command(kind, numbers[:own_coefficients], words[:own_names], rows))
        del numbers[:own_coefficients], words[:own_names]
    return commands


def answer_sizes(commands: Sequence[Command]) -> list[tuple[int, int]]:
    """The shapes of the answers to a program, in order."""
    return [(len(c.rows), len(c.columns)) for c in commands if isinstance(c, Dots)]


def vectors_moved(command: Command) -> int:
    """Vectors that a command reads or writes at least, for accounts of memory traffic."""
    match command:
        case Dots(rows, columns):
            return len({*rows, *columns})
        case Combine(_, _, vectors):
            return len(vectors) + 1
        case Multiply():
            return 3
        case Fill():
            return 1
    return 0


def _parts(command: Command) -> tuple[int, list[float], list[str]]:
    match command:
        case Dots(rows, columns):
            return DOTS, [], [*rows, *columns]
        case Combine(target, coefficients, vectors):
            return COMBINE, list(coefficients), [target, *vectors]
        case Multiply(target, left, right):
            return MULTIPLY, [], [target, left, right]
        case Fill(target, value):
            return FILL, [value], [target]
        case Swap(one, other):
            return SWAP, [], [one, other]
    raise TypeError(f"{command!r} is no command on vectors")


def _command(kind: int, coefficients: list[float], names: list[str], rows: int) -> Command:
    match kind:
        case 0:
            return Dots(tuple(names[:rows]), tuple(names[rows:]))
        case 1:
            return Combine(names[0], tuple(coefficients), tuple(names[1:]))
        case 2:
            return Multiply(*names)
        case 3:
            return Fill(names[0], coefficients[0])
        case 4:
            return Swap(*names)
    raise ValueError(f"a command of unknown kind {kind}")
