"""Sandblaster by scenario.

    python bench/sandblaster.py --scenario straggler [--replicas N] [--slow N]               in the simulator
    mpirun -n N+1 python bench/sandblaster.py --scenario straggler [--replicas N] [--slow N] on real processes
    python bench/sandblaster.py --scenario direction [--size N] [--history N]                in this process
    mpirun -n S+1 python bench/sandblaster.py --scenario direction --shards S [--size N]     on S shards

The last line is JSON. straggler: one of the replicas (4) is slower than the others (10 times): see straggler.py.
`ratio_to_ideal` is the time of an evaluation by the ideal one, with small portions and backup copies;
`ratio_small_portions` the same without backup copies, `ratio_without_backups` with neither. Medians.
direction: what one direction of L-BFGS does to vectors, against what the memory gives: see direction.py.
`bandwidth_ratio` is the bytes that it must move a second by those of a copy or a reading, whichever is more; of the
shards the least. `round_trips`, `wall_ms`: of a direction, as the coordinator sees it. `coordinator_ms`: seconds of a
core that the coordinator takes for an evaluation and the direction to it, waiting included; `coordinator_cpu`: the
share of a core that it takes meanwhile.
"""

import argparse
import json

import direction
import job
import machine
import straggler

from distbelief.launch.world import promised_size

SCENARIOS = {"direction": direction.measure, "straggler": straggler.measure}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/sandblaster.py", description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, required=True)
    of = parser.add_argument_group("straggler")
    of.add_argument("--replicas", type=job.count, default=4)
    of.add_argument("--slow", type=float, default=10.0, help="how much slower the last replica is")
    of.add_argument("--examples", type=job.count, default=12_000, help="in a batch; each takes 250 us")
    of.add_argument("--evaluations", type=job.count, default=6)
    of = parser.add_argument_group("direction")
    of.add_argument("--size", type=job.count, default=5_000_000, help="numbers of a vector, float32")
    of.add_argument("--shards", type=job.count, default=1, help="on ranks of their own, beside the coordinator's")
    of.add_argument("--history", type=job.count, default=10)
    of.add_argument("--directions", type=job.count, default=10, help="how many to measure, about")
    return parser


def main() -> None:
    if promised_size() is None:
        arguments = _parser().parse_args()
        result = SCENARIOS[arguments.scenario](None, arguments)
        print(json.dumps({"bench": "sandblaster"} | vars(arguments) | result | {"machine": machine.facts()}))
        return
    job.run(
        "sandblaster",
        _parser(),
        lambda arguments: (arguments.shards if arguments.scenario == "direction" else arguments.replicas) + 1,
        lambda endpoint, arguments: SCENARIOS[arguments.scenario](endpoint, arguments),
    )


if __name__ == "__main__":
    main()
