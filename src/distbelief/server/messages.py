"""What travels between clients and shards: tags, the header of a push, its acknowledgement, the window's record."""

from bisect import bisect_right
from collections import namedtuple

import numpy as np

# Tags. One message of PUSH, a header, may be followed by one with `payload_tag` of its mark, a piece of a gradient.
PUSH, APPLIED = 1, 3
NOTHING = 9  # no message ever has this tag
PAYLOADS = range(1024, 1536)

# Kinds of headers. GRADIENT: a piece of a push, whose payload follows. LYING: one whose payload lies in the window of
# the rank that it comes from, and stays there until the shard's mark says that it has been applied. FETCHING: the
# client fetches this interval now. THROUGH: it will push no more.
GRADIENT, FETCHING, THROUGH, LYING = range(4)

HEADER = np.dtype(
    [
        ("kind", "<i4"),
        ("client", "<i4"),  # its number: of a replica, or of a partition of one
        ("sequence", "<i8"),  # the client's pushes, counted from 0
        ("count", "<i8"),  # the shard's updates when the gradient's parameters were fetched
        ("clock", "<i8"),  # how many steps the replica has come since the end of the warmstart
        ("start", "<i8"),  # the interval of the payload
        ("stop", "<i8"),
        ("nbytes", "<i8"),  # of the payload
        ("mark", "<i8"),  # pieces that the client has sent to this shard so far, this one included
        ("last", "<i8"),  # whether it is the push's last piece for this shard
        ("place", "<i8"),  # of a payload that lies in a window: where, in bytes from its beginning
    ]
)
Header = namedtuple("Header", HEADER.names)
"""The same as Python's numbers: `Header(*header.item())`, as reading a field of an array takes a microsecond."""
ACKNOWLEDGEMENT = np.dtype(
    [
        ("sequence", "<i8"),  # the push that has been applied
        ("count", "<i8"),  # the shard's updates, this push included
    ]
)
# Where each bucket of the staleness histogram begins. One for each staleness up to 32, as few replicas make it; from
# there 8 for each doubling, so that with thousands the buckets are still an eighth of it wide. The last one is open.
EDGES = (*range(32), *(eighth << octave for octave in range(2, 10) for eighth in range(8, 16)), 8192)
# The beginning of a shard's window (see server.exposed). Read one-sided, as the parameters are.
RECORD = np.dtype(
    {
        "names": ["count", "slowest", "staleness_sum", "staleness_max", "refused", "staleness_histogram"],
        "formats": ["<i8", "<i8", "<i8", "<i8", "<i8", ("<i8", (len(EDGES),))],
        "itemsize": 64 * 13,  # whole cache lines: the parameters behind it begin on one
    }
)


def bucket(staleness: int) -> int:
    """In which bucket of the histogram a push of this staleness is counted."""
    return max(bisect_right(EDGES, staleness) - 1, 0)


def payload_tag(mark: int) -> int:
    """The tag of the payload of the header with this mark: so one whose header was refused is never another's."""
    return PAYLOADS[1 + (mark - 1) % (len(PAYLOADS) - 1)] if mark > 0 else PAYLOADS[0]


def record(dtype: np.dtype, **fields) -> np.ndarray:
    """One element of `dtype`, shape (1,), ready to be sent. Fields that are not named are zero."""
    made = np.zeros(1, dtype)
    made[0] = tuple([fields.pop(name, 0) for name in dtype.names])  # in one go: by name each takes a microsecond
    assert not fields, f"{list(fields)} are not among {dtype.names}"
    return made
