"""A measurement on several ranks: how it begins, and how it ends on all of them."""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable

import machine

from distbelief.comm.endpoint import Endpoint
from distbelief.errors import UserError
from distbelief.launch.ending import end
from distbelief.launch.world import world


def run(
    name: str,
    parser: argparse.ArgumentParser,
    ranks: Callable[[argparse.Namespace], int],
    measure: Callable[[Endpoint, argparse.Namespace], dict | None],
) -> None:
    """Call `measure(endpoint, arguments)` on every rank of the job. Collective over all ranks; exits if it fails.

    What it returns on rank 0 is the last line of output: JSON, with the arguments and the facts of the machine.
    `ranks` tells how many the arguments ask for.
    """
    try:
        endpoint = world()
        arguments = _parse(parser, endpoint)
        needed = ranks(arguments)
        if endpoint is None or endpoint.size != needed:
            started = "without mpirun" if endpoint is None else f"with -n {endpoint.size}"
            raise UserError(f"{parser.prog} was started {started}, expected mpirun -n {needed}")
        result = measure(endpoint, arguments)
        if endpoint.rank == 0:
            from distbelief.comm.mpi import library_version

            facts = machine.facts() | {"mpi": library_version()}
            print(json.dumps({"bench": name} | vars(arguments) | result | {"machine": facts}), flush=True)
    except Exception as error:
        sys.exit(end(error))


def _parse(parser: argparse.ArgumentParser, endpoint: Endpoint | None) -> argparse.Namespace:
    """The arguments; what is wrong with them, rank 0 alone says."""
    if endpoint is None or endpoint.rank == 0:
        return parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return parser.parse_args()


def count(text: str) -> int:
    """An argument that is a number of things, one at least."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}, expected at least 1")
    return number
