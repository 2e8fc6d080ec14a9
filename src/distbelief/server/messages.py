"""What travels between clients and shards: tags, the header of a push, its acknowledgement, the window's record."""

import numpy as np

# Tags. One message of PUSH (a header) is followed by one of PAYLOAD (the gradient of the shard's interval).
PUSH, PAYLOAD, APPLIED = 1, 2, 3

HEADER = np.dtype(
    [
        ("sequence", "<i8"),  # the replica's pushes, counted from 0
        ("count", "<i8"),  # the shard's updates when the gradient's parameters were fetched
        ("start", "<i8"),  # the interval of the payload
        ("stop", "<i8"),
    ]
)
ACKNOWLEDGEMENT = np.dtype(
    [
        ("sequence", "<i8"),  # the push that has been applied
        ("count", "<i8"),  # the shard's updates, this push included
    ]
)
# The beginning of a shard's window; its parameters follow. Read one-sided together with them.
RECORD = np.dtype(
    {
        "names": ["count", "staleness_sum", "staleness_max"],
        "formats": ["<i8", "<i8", "<i8"],
        "itemsize": 64,  # the parameters behind it begin on a cache line
    }
)


def record(dtype: np.dtype, **fields) -> np.ndarray:
    """One element of `dtype`, shape (1,), ready to be sent. Fields that are not named are zero."""
    made = np.zeros(1, dtype)
    for name, value in fields.items():
        made[name] = value
    return made
