"""Runs the endpoint suite on MPI: `mpiexec -n 4 python -m mpi4py endpoint_checks.py NAME...`, or `all`.

Rank 0 prints the name of each check before it starts, and "all passed" at the end: an exit code of zero alone
proves nothing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests folder: this program is no part of a package

from comm import collective_suite, event_suite, ring_suite, suite  # noqa: E402

from distbelief.comm import mpi  # noqa: E402


def check_ranks_of_one_node_find_each_others_memory(endpoint: mpi.MpiEndpoint) -> None:
    """These checks run on one; elsewhere windows have none to offer."""
    window = endpoint.window(0)
    assert all(window.memory(source) is not None for source in range(endpoint.size))
    window.free()


def check_windows_without_shared_memory(endpoint: mpi.MpiEndpoint) -> None:
    """A node that has less than is asked for: as in a container, whose /dev/shm is 64 MB."""
    free, mpi._free_to_share = mpi._free_to_share, lambda: 0
    try:
        for name, check in collective_suite.CHECKS.items():
            if "window" in name:
                check(endpoint.split(0, endpoint.rank))
        window = endpoint.window(100)
    finally:
        mpi._free_to_share = free
    assert all(window.memory(source) is None for source in range(endpoint.size))
    assert window.local.ctypes.data % 64 == 0
    window.free()


CHECKS = {**suite.CHECKS, **collective_suite.CHECKS, **event_suite.CHECKS, **ring_suite.CHECKS}
CHECKS["no_shared_memory"] = check_windows_without_shared_memory
CHECKS["one_node"] = check_ranks_of_one_node_find_each_others_memory


def main(names: list[str]) -> None:
    """Run the checks, each on an endpoint of its own: a slower rank must not see a later check's messages."""
    world = mpi.world()
    if world.size != suite.RANKS:
        raise SystemExit(f"{world.size} ranks, the checks are for {suite.RANKS}")
    for name in list(CHECKS) if names == ["all"] else names:
        if world.rank == 0:
            print(name, flush=True)
        CHECKS[name](world.split(0, world.rank))
    world.split(0, world.rank)  # no rank says goodbye before all have passed
    if world.rank == 0:
        print("all passed", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
