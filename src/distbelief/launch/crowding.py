"""Whether the ranks of a node want more cores than they may run on."""

import platform
import zlib

import numpy as np

from distbelief.comm.endpoint import Endpoint
from distbelief.kernels import used_threads
from distbelief.processor import cpu

_TAG = 22
_TIMEOUT = 600.0
_CORES = 4096  # that a mask has room for
# What a rank tells of itself.
_PLACE = np.dtype([("node", np.int64), ("threads", np.int64), ("cores", np.uint8, _CORES // 8)])


def crowding(endpoint: Endpoint | None) -> str | None:
    """One line of warning on rank 0 if threads outnumber cores on some node, else None. Collective over all ranks."""
    if endpoint is None or endpoint.size == 1:
        return told(_place())
    if endpoint.rank != 0:
        endpoint.wait_all([endpoint.send(_place().view(np.uint8), 0, _TAG)], _TIMEOUT, "rank 0 to hear of our cores")
        return None
    places = np.zeros(endpoint.size, _PLACE)
    places[:1] = _place()
    hearing = [endpoint.receive(places[rank : rank + 1].view(np.uint8), rank, _TAG) for rank in range(1, endpoint.size)]
    endpoint.wait_all(hearing, _TIMEOUT, "all ranks to tell which cores they have")
    return told(places)


def told(places: np.ndarray) -> str | None:
    """The warning about the most crowded node among `places`, if any. Local."""
    worst, words = 1.0, None
    for node in np.unique(places["node"]):
        ranks = places[places["node"] == node]
        threads = int(ranks["threads"].sum())
        cores = int(np.unpackbits(np.bitwise_or.reduce(ranks["cores"])).sum())
        if threads > worst * cores:
            worst = threads / cores
            each = "1 rank" if len(ranks) == 1 else f"{len(ranks)} ranks on one node"
            words = f"warning: {each} with {threads} threads in all (run.threads) for {cores} cores: expect a slow run"
    return words


def _place() -> np.ndarray:
    place = np.zeros(1, _PLACE)
    place["node"] = zlib.crc32(platform.node().encode())
    place["threads"] = used_threads()
    place["cores"] = np.packbits(np.isin(np.arange(_CORES), list(cpu.cores())))
    return place
