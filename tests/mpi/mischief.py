"""The command with something wrong on one rank: `mischief.py RANK WHAT ARGUMENTS...` is `distbelief ARGUMENTS...`,
but rank RANK (the only one, without a launcher; or "every") suffers WHAT, one of the functions below.
"""

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np

from distbelief import cli
from distbelief.launch.world import promised_rank

CALLS = 5
"""What goes wrong during training goes wrong in this call: then training is well under way."""


def fail(*arguments) -> None:
    raise ArithmeticError("planted")


def fall_silent(*arguments) -> None:
    while True:
        time.sleep(60)


def be_killed(*arguments) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_slow(*arguments) -> None:
    """Every gradient from now on takes as long as many on other ranks."""
    from distbelief.nn import Network

    gradient = Network.gradient

    def slowed(*words):
        time.sleep(0.01)
        return gradient(*words)

    Network.gradient = slowed
    return slowed(*arguments)


def run_out_of_memory(*arguments) -> None:
    np.ones(1 << 60, np.uint8)


def in_gradient(act: Callable) -> None:
    from distbelief.nn import Network
    from distbelief.partition import PartitionedNetwork

    _spoil(Network, "gradient", act, CALLS)
    _spoil(PartitionedNetwork, "gradient", act, CALLS)


def in_apply(act: Callable) -> None:
    from distbelief.server import Shard

    _spoil(Shard, "apply", act, CALLS)


def in_receiving(act: Callable) -> None:
    """The first payload of a push that comes as a message."""
    from distbelief.server import Service

    _spoil(Service, "_follows", act, 1)


def in_commands(act: Callable) -> None:
    from distbelief.server.vectors import VectorService

    _spoil(VectorService, "_run", act, 2 * CALLS)


def in_evaluation(act: Callable) -> None:
    from distbelief.report import Reporter

    _spoil(Reporter, "evaluated", act, 2)


def in_preparation(act: Callable) -> None:
    from distbelief.experiment import Experiment

    _spoil(Experiment, "__init__", act, 1)


def at_the_end(act: Callable) -> None:
    """By when all others have had the time to leave."""
    from distbelief.report import RunFolder

    def act_late(*arguments):
        time.sleep(1)
        act(*arguments)

    _spoil(RunFolder, "end", act_late, 1)


def before_mpi(act: Callable) -> None:
    from distbelief.launch import training

    _spoil(training, "world", act, 1)


def _spoil(owner: type | ModuleType, name: str, act: Callable, call: int) -> None:
    """Have the `call`-th call of a method or function do `act` instead."""
    method = getattr(owner, name)
    calls = 0

    def spoilt(*arguments):
        nonlocal calls
        calls += 1
        return (act if calls == call else method)(*arguments)

    setattr(owner, name, spoilt)


def go_elsewhere() -> None:
    """To a folder without the data: the one named by the environment."""
    os.chdir(os.environ["ELSEWHERE"])


def come_late() -> None:
    """After all others have had the time to give up and be gone."""
    time.sleep(2)


def lack_bfloat16() -> None:
    """On a processor without products of it, whatever this one has."""
    from distbelief.processor import cpu, prepare

    sys.modules[prepare.__module__].use_kernels16 = lambda *wanted: None
    cpu.features = lambda: {"avx2"}


ACTS = {
    "fails": fail,
    "falls-silent": fall_silent,
    "is-killed": be_killed,
    "is-slow": be_slow,
    "runs-out-of-memory": run_out_of_memory,
}
PLACES = {
    "in-gradient": in_gradient,
    "in-apply": in_apply,
    "in-receiving": in_receiving,
    "in-commands": in_commands,
    "in-evaluation": in_evaluation,
    "in-preparation": in_preparation,
    "at-the-end": at_the_end,
    "before-mpi": before_mpi,
}
WHOLE = {"goes-elsewhere": go_elsewhere, "comes-late": come_late, "lacks-bfloat16": lack_bfloat16}


def main() -> int:
    rank, what, *words = sys.argv[1:]
    if what.endswith(":at-the-end"):
        atexit.register(print, "a rank has left", flush=True)
    if rank == "every" or int(rank) == promised_rank():
        if what in WHOLE:
            WHOLE[what]()
        else:
            act, _, place = what.partition(":")  # "fails:in-gradient"
            PLACES[place](ACTS[act])
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main())
