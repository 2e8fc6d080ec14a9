"""The command line: `distbelief train | evaluate | plan | plot | info | data`."""

import argparse
import os
import sys

from distbelief import __version__
from distbelief.errors import UserError
from distbelief.launch.ending import end
from distbelief.launch.world import promised_rank, promised_size

INTERRUPTED = 130  # as shells have it


class _Parser(argparse.ArgumentParser):
    """Under mpirun one rank speaks, not all; bad arguments become UserErrors."""

    def _print_message(self, message, file=None):
        if promised_rank() == 0:
            super()._print_message(message, file)

    def error(self, message: str):
        raise UserError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="distbelief", description="Large scale distributed deep networks on CPU clusters.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    train = commands.add_parser("train", help="train a network; under mpirun, by Downpour SGD")
    train.add_argument("config", metavar="CONFIG", help="a TOML file")
    train.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[])
    train.set_defaults(run=_train, alone=False)

    evaluate = commands.add_parser("evaluate", help="try the parameters of a run on its test examples")
    evaluate.add_argument("folder", metavar="RUN", help="a run's folder")
    evaluate.set_defaults(run=_evaluate, alone=True)

    plot = commands.add_parser("plot", help="draw what runs tell of themselves: accuracy, throughput, staleness")
    plot.add_argument("folders", metavar="RUN", nargs="+", help="a run's folder")
    plot.add_argument("--to", default="plots", metavar="DIR", help="where the PNG files go (default: %(default)s)")
    plot.set_defaults(run=_plot, alone=True)

    plan = commands.add_parser("plan", help="show how a network would be cut over the ranks of a replica")
    plan.add_argument("config", metavar="CONFIG", help="a TOML file")
    plan.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[])
    plan.add_argument("--partitions", type=int, metavar="P", help="ranks of a replica (default: network.partitions)")
    plan.add_argument("--gflops", type=float, default=60.0, help="10^9 operations/s of a rank (default: %(default)s)")
    plan.add_argument("--gbits", type=float, default=10.0, help="10^9 bits/s of its link (default: %(default)s)")
    plan.add_argument("--latency", type=float, default=20e-6, help="of a message, in seconds (default: %(default)s)")
    plan.set_defaults(run=_plan, alone=True)

    info = commands.add_parser("info", help="versions, BLAS, MPI, CPU features, threads")
    info.set_defaults(run=_info, alone=False)

    data = commands.add_parser("data", help="provide a dataset")
    data.add_argument("name", choices=["fashion-mnist"])
    data.add_argument("--to", required=True, metavar="DIR")
    data.set_defaults(run=_data, alone=True)
    return parser


def _train(arguments) -> int:
    from distbelief.launch.training import train

    return train(arguments.config, arguments.settings)


def _evaluate(arguments) -> int:
    from distbelief.launch.evaluation import evaluate

    which, loss, accuracy = evaluate(arguments.folder)
    accurate = "" if accuracy is None else f"accuracy {accuracy:.4f}  "
    print(f"{which} {accurate}(loss {loss:.4f})")
    return 0


def _plot(arguments) -> int:
    from distbelief.plot import plot

    for path in plot(arguments.folders, arguments.to):
        print(path)
    return 0


def _plan(arguments) -> int:
    from distbelief.launch.planning import plan

    words = arguments.settings, arguments.partitions, arguments.gflops, arguments.gbits, arguments.latency
    print("\n".join(plan(arguments.config, *words)))
    return 0


def _info(arguments) -> int:
    from distbelief.launch.information import information

    lines = information()
    if promised_rank() == 0:
        print("\n".join(lines))
    return 0


def _data(arguments) -> int:
    from distbelief.data import provide_fashion_mnist

    provide_fashion_mnist(arguments.to)
    return 0


def main(words: list[str] | None = None) -> int:
    """Run the command in `words` (default: the program's) and return its exit code.

    0: done. 2: bad input, with one line on stderr from one rank. A Python exception on any rank prints its traceback
    and ends all ranks with code 1. 130: one rank alone was interrupted (Ctrl-C); of several the launcher ends all.
    """
    # Before any BLAS is loaded: one thread for each rank unless the user says otherwise.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    alone = False
    try:
        arguments = _parser().parse_args(words)
        alone = arguments.alone  # a command for one rank: the others have nothing to do
        return 0 if alone and promised_rank() != 0 else arguments.run(arguments)
    except KeyboardInterrupt:
        if (promised_size() or 1) > 1:
            raise
        print("distbelief: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        return end(error, alone)
