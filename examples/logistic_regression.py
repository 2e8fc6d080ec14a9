"""Multinomial logistic regression in NumPy, on handwritten digits.

python examples/logistic_regression.py                  serially
mpirun -n 3 python examples/logistic_regression.py      by Downpour: one rank holds the parameters, two train
"""

import argparse

import numpy as np

from distbelief import Adagrad, Downpour, Evaluate, Model, Stop, train


class LogisticRegression(Model):
    """Classes as softmax of w x + b; the loss is the cross-entropy."""

    def __init__(self, inputs: int, classes: int):
        self.tensors = {"w": (classes, inputs), "b": (classes,)}

    def gradient(self, parameters, batch, gradient):
        x_ni, y_n = batch
        n = len(y_n)
        logp_nc = self._log_probabilities(parameters, x_ni)
        error_nc = np.exp(logp_nc)
        error_nc[np.arange(n), y_n] -= 1
        gradient["w"] = error_nc.T @ x_ni / n
        gradient["b"] = error_nc.mean(axis=0)
        return -logp_nc[np.arange(n), y_n].mean()

    def score(self, parameters, batch):
        """Not needed, but evaluations then tell the accuracy, too."""
        x_ni, y_n = batch
        logp_nc = self._log_probabilities(parameters, x_ni)
        return -logp_nc[np.arange(len(y_n)), y_n].sum(), (logp_nc.argmax(axis=1) == y_n).sum()

    @staticmethod
    def _log_probabilities(parameters, x_ni):
        z_nc = x_ni @ parameters["w"].T + parameters["b"]
        z_nc -= z_nc.max(axis=1, keepdims=True)
        return z_nc - np.log(np.exp(z_nc).sum(axis=1, keepdims=True))


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 64] from 0 to 1 and labels [n]: scikit-learn's, or without it noisy images of ten patterns."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        random = np.random.default_rng(0)
        labels = random.integers(0, 10, 1800)
        images = random.uniform(0, 1, (10, 64))[labels] + random.normal(0, 0.3, (1800, 64))
    else:
        images, labels = load_digits(return_X_y=True)
        images = images / 16
    return images.astype(np.float32), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--folder", help="where to leave the run's files")
    arguments = parser.parse_args()
    outcome = train(
        LogisticRegression(inputs=64, classes=10),
        digits(),
        rule=Adagrad(rate=0.1),
        downpour=Downpour(n_fetch=2, n_push=2),
        stop=Stop(epochs=arguments.epochs),
        evaluate=Evaluate(every_examples=10_000),
        held_out=300,
        folder=arguments.folder,
    )
    if outcome.parameters is not None:  # on rank 0
        print(f"accuracy {outcome.evaluation.accuracy:.3f}")


if __name__ == "__main__":
    main()
