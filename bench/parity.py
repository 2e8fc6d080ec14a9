"""Softmax regression by Sandblaster's L-BFGS and by SciPy's: the same minimum, after as many evaluations?

    python bench/parity.py [--data FOLDER] [--penalty P]
    mpirun -n N python bench/parity.py [--shards S]

Fashion-MNIST in float64 (`distbelief data fashion-mnist --to data/fashion-mnist`), all training images but one, which
is held out, or fewer; pixels as in the example, with an L2 penalty, so that there is one minimum. Both methods begin at
the same parameters, remember as many pairs, and go on until the gradient's norm tells that the loss is well within 1e-6
of the minimum's, relative. SciPy (L-BFGS-B, no bounds) minimises the same objective as NumPy computes it, all images at
once. The last line is JSON.
`loss_difference`: of the last losses, ours less SciPy's, relative. `evaluations`, `scipy_evaluations`: until the loss
was within 1e-6 of the lowest that either of them found.
"""

import argparse
import json
from pathlib import Path

import job
import machine
import msgspec
import numpy as np
import scipy.optimize

from distbelief.algorithms.progress import BatchEvaluation
from distbelief.comm.endpoint import Endpoint
from distbelief.config import Config, load
from distbelief.data import open_dataset
from distbelief.experiment import Experiment
from distbelief.launch import training
from distbelief.launch.job import Job
from distbelief.launch.world import promised_size
from distbelief.nn.arena import Arena

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist_lbfgs.toml"
NEAR = 1e-6
LOSS = 0.4  # about what the minimum is
CLASSES = 10


class Listener:
    """Keeps the loss of every evaluation."""

    def __init__(self):
        self.losses: list[float] = []

    def progress(self, progress): ...

    def evaluated(self, evaluation): ...

    def batch_evaluated(self, evaluation: BatchEvaluation) -> None:
        self.losses.append(evaluation.loss)


class Reference:
    """The same objective by NumPy: all examples of an experiment in one matrix."""

    def __init__(self, experiment: Experiment, penalty: float):
        examples = experiment.examples()
        batches = [(b.x_in.T.copy(), b.labels.copy()) for b in examples.read(np.arange(len(examples)))]
        self._x_ni = np.concatenate([x_ni for x_ni, _ in batches])
        self._labels_n = np.concatenate([labels_n for _, labels_n in batches])
        self._penalty = penalty
        self.losses: list[float] = []

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        n, places = len(self._labels_n), np.arange(len(self._labels_n))
        w_oi, b_o = parameters[:-CLASSES].reshape(CLASSES, -1), parameters[-CLASSES:]
        z_no = self._x_ni @ w_oi.T + b_o
        z_no -= z_no.max(axis=1, keepdims=True)
        p_no = np.exp(z_no)
        total_n = p_no.sum(axis=1)
        loss = np.mean(np.log(total_n) - z_no[places, self._labels_n]) + self._penalty / 2 * np.sum(w_oi**2)
        p_no /= total_n[:, None]
        p_no[places, self._labels_n] -= 1
        gradient = [p_no.T @ self._x_ni / n + self._penalty * w_oi, p_no.mean(axis=0)]
        self.losses.append(float(loss))
        return float(loss), np.concatenate([part.ravel() for part in gradient])


def measure(endpoint: Endpoint | None, arguments: argparse.Namespace) -> dict | None:
    config = configuration(arguments)
    listener = Listener()

    def describe() -> Job:
        experiment = Experiment(config)
        return Job(experiment, config, config.run.timeout, try_out=experiment.batches)

    outcome = training.run(describe, listener)
    if endpoint is not None and endpoint.rank:
        return None
    ours, found = listener.losses, outcome.parameters.flat
    experiment = Experiment(config)
    reference, model = Reference(experiment, arguments.penalty), experiment.model()
    start = Arena(model.layout, model.dtype)
    model.initialise(start, experiment.seed)
    # SciPy's tolerance is for the largest component of the gradient.
    gtol = _norm(arguments.penalty) / 10
    options = {"maxcor": arguments.history, "gtol": gtol, "ftol": 0.0, "maxfun": 10**6, "maxiter": 10**6}
    scipys = scipy.optimize.minimize(reference, start.flat, jac=True, method="L-BFGS-B", options=options)
    loss, gradient = reference(found)
    lowest = min([loss, *reference.losses])
    row = {
        "examples": experiment.training_examples,
        "ranks": 1 if endpoint is None else endpoint.size,
        "loss": ours[-1],
        "scipy_loss": float(scipys.fun),
        "loss_difference": (loss - scipys.fun) / scipys.fun,
        "own_loss_difference": (ours[-1] - loss) / loss,
        "gradient_norm": float(np.linalg.norm(gradient)),
        "scipy_gradient_norm": float(np.linalg.norm(scipys.jac)),
        "evaluations": _until_near(ours, lowest),
        "scipy_evaluations": _until_near(reference.losses, lowest),
        "evaluations_in_all": len(ours),
        "scipy_evaluations_in_all": scipys.nfev,
    }
    for key, value in row.items():
        print(f"{key.replace('_', ' '):<28}{value:>24.12g}")
    return row


def configuration(arguments: argparse.Namespace) -> Config:
    """The example's, but for a network of one layer in float64 and rules that end it at the minimum."""
    images, labels = (Path(arguments.data) / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    count = open_dataset(images, labels).examples
    changed = {
        "data.train": f'{{ inputs = "{images}", labels = "{labels}" }}',
        "data.held_out": count - min(arguments.examples or count, count - 1),
        "network.layers": f'[{{ kind = "dense", outputs = {CLASSES} }}]',
        "network.dtype": "float64",
        "network.penalty": arguments.penalty,
        "server.shards": arguments.shards,
        "sandblaster.portion": arguments.portion,
        "sandblaster.method.history": arguments.history,
        "sandblaster.stop": f"{{ gradient_norm = {_norm(arguments.penalty)}, relative_decrease = 0.0 }}",
        "evaluate": "{}",
    }
    config = load(EXAMPLE, [f"{key}={value}" for key, value in changed.items()])
    return msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, test=None))


def _norm(penalty: float) -> float:
    """The norm of a gradient g where the loss is near the minimum: g^2 / (2 penalty) above it, or little more.

    Were biases penalised, too, it would be no more.
    """
    return (2 * penalty * LOSS * NEAR / 10) ** 0.5


def _until_near(losses: list[float], lowest: float) -> int:
    """How many evaluations it took to come near the lowest loss."""
    return next(number for number, loss in enumerate(losses, 1) if loss <= lowest * (1 + NEAR))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/parity.py", description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data/fashion-mnist", help="the folder with the images")
    parser.add_argument("--examples", type=job.count, help="training images; as they are not given, all but one")
    parser.add_argument("--penalty", type=float, default=0.3, help="times half the sum of the squared weights")
    parser.add_argument("--history", type=job.count, default=10)
    parser.add_argument("--portion", type=job.count, default=1000, help="images in a portion")
    parser.add_argument("--shards", type=job.count, default=1, help="on the ranks of the first replicas")
    return parser


def main() -> None:
    if promised_size() is None:
        arguments = _parser().parse_args()
        result = measure(None, arguments)
        print(json.dumps({"bench": "parity"} | vars(arguments) | result | {"machine": machine.facts()}))
        return
    job.run("parity", _parser(), lambda arguments: promised_size(), measure)


if __name__ == "__main__":
    main()
