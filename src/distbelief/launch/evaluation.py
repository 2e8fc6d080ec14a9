"""`distbelief evaluate`: the parameters of a finished run, tried on its test examples."""

import sys
from pathlib import Path

from distbelief import checkpoint
from distbelief.algorithms.scoring import score
from distbelief.config import load
from distbelief.errors import UserError
from distbelief.experiment import Experiment
from distbelief.processor import prepare
from distbelief.report import CONFIG, PARAMETERS, SETTINGS


def evaluate(folder: str) -> tuple[str, float, float | None]:
    """(which examples, mean loss, accuracy) of the run in `folder`: test examples, or held-out ones without. Local.

    Raises UserError if the folder holds no run.
    """
    if (Path(folder) / SETTINGS).exists():
        raise UserError(f"{folder}: the run of a script's own model, which has to try its parameters itself")
    if not (Path(folder) / CONFIG).exists():
        raise UserError(f"{folder}: not a run's folder, it has no {CONFIG}")
    config = load(Path(folder) / CONFIG)
    if words := prepare(config.run.threads, config.run.blas, config.network.dtype):
        print(f"distbelief: {words}", file=sys.stderr, flush=True)
    experiment = Experiment(config)
    model = experiment.model()
    parameters = checkpoint.load(Path(folder) / PARAMETERS, model.layout, model.dtype)
    test = experiment.test()
    which, batches = ("held out", experiment.held_out()) if test is None else ("test", test)
    return which, *score(model, parameters, batches)
