"""Networks cut over the ranks of the job against one rank: `mpiexec -n P python -m mpi4py partition_checks.py`.

Rank 0 prints the name of each network before it is tried, and "all passed" at the end: an exit code of zero alone
proves nothing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests folder: this program is no part of a package

import numpy as np  # noqa: E402
from partition.cut_networks import a_batch, expect_equal, on_one_rank, on_this_rank, slices  # noqa: E402
from partition.some_networks import NETWORKS  # noqa: E402

from distbelief.comm import mpi  # noqa: E402
from distbelief.partition import Peers, Plan  # noqa: E402


def main() -> None:
    world = mpi.world()
    for name, make in NETWORKS.items():
        for dtype, tolerance in ((np.float32, 5e-5), (np.float64, 1e-12)):
            if world.rank == 0:
                print(name, np.dtype(dtype).name, flush=True)
            layers, loss = make()
            batches = [a_batch(layers, n, dtype) for n in (40, 3)]
            peers = Peers(world, range(world.size), timeout=30.0)
            found, network = on_this_rank(peers, Plan(layers, world.size), batches, dtype, loss)
            truth = on_one_rank(layers, batches, dtype, loss)
            expect_equal(found, [(value, slices(network, flat), score) for value, flat, score in truth], tolerance)
    world.split(0, world.rank)  # no rank says goodbye before all have passed
    if world.rank == 0:
        print("all passed", flush=True)


if __name__ == "__main__":
    main()
