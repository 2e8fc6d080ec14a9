"""Which node each rank is on."""

import platform
import zlib

import numpy as np

from distbelief.comm.endpoint import Endpoint

_TAG = 23
_TIMEOUT = 600.0


def nodes_of(endpoint: Endpoint) -> list[int]:
    """A number of each rank's node, the same for ranks on one. Collective over all ranks."""
    mine = np.array([zlib.crc32(platform.node().encode())], np.int64)
    everyone = np.zeros(endpoint.size, np.int64)
    others = range(1, endpoint.size)
    if endpoint.rank == 0:
        everyone[0] = mine[0]
        hearing = [endpoint.receive(everyone[rank : rank + 1], rank, _TAG) for rank in others]
        endpoint.wait_all(hearing, _TIMEOUT, "all ranks to tell which node they are on")
        telling = [endpoint.send(everyone, rank, _TAG) for rank in others]
        endpoint.wait_all(telling, _TIMEOUT, "all ranks to hear who is on which node")
    else:
        endpoint.wait_all([endpoint.send(mine, 0, _TAG)], _TIMEOUT, "rank 0 to hear which node this rank is on")
        endpoint.wait_all([endpoint.receive(everyone, 0, _TAG)], _TIMEOUT, "rank 0 to tell who is on which node")
    return everyone.tolist()
