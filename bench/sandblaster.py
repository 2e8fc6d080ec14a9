"""Sandblaster by scenario.

    python bench/sandblaster.py --scenario direction [--size N] [--history N]

direction: what one direction of L-BFGS does to vectors, against what the memory gives: see direction.py. The last line
is JSON: `bandwidth_ratio` is the bytes that it must move a second by those of a copy or a reading, whichever is
more; `coordinator_ms` is what the scalars of an iteration take.
"""

import argparse
import json

import direction
import job
import machine

SCENARIOS = {"direction": direction.measure}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/sandblaster.py", description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, required=True)
    parser.add_argument("--size", type=job.count, default=5_000_000, help="numbers of a vector, float32")
    parser.add_argument("--history", type=job.count, default=10)
    parser.add_argument("--directions", type=job.count, default=10, help="how many to measure, about")
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    result = SCENARIOS[arguments.scenario](None, arguments)
    print(json.dumps({"bench": "sandblaster"} | vars(arguments) | result | {"machine": machine.facts()}))


if __name__ == "__main__":
    main()
