"""Sandblaster by scenario.

    python bench/sandblaster.py --scenario straggler [--replicas N] [--slow N]               in the simulator
    mpirun -n N+1 python bench/sandblaster.py --scenario straggler [--replicas N] [--slow N] on real processes

straggler: one of the replicas (4) is slower than the others (10 times): see straggler.py. The last line is JSON:
`ratio_to_ideal` is the time of an evaluation by the ideal one, with small portions and backup copies;
`ratio_small_portions` the same without backup copies, `ratio_without_backups` with neither. Medians.
"""

import argparse
import json

import job
import machine
import straggler

from distbelief.launch.world import promised_size

SCENARIOS = {"straggler": straggler.measure}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/sandblaster.py", description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, required=True)
    parser.add_argument("--replicas", type=job.count, default=4)
    parser.add_argument("--slow", type=float, default=10.0, help="how much slower the last replica is")
    parser.add_argument("--examples", type=job.count, default=12_000, help="in a batch; each takes 250 us")
    parser.add_argument("--evaluations", type=job.count, default=6)
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
        lambda arguments: arguments.replicas + 1,
        lambda endpoint, arguments: SCENARIOS[arguments.scenario](endpoint, arguments),
    )


if __name__ == "__main__":
    main()
