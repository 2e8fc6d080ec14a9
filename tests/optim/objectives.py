"""Objectives to minimise, on one NumPy vector: `from optim.objectives import ...`."""

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import load_digits

from distbelief.optim import Method, Result, StopRules, Vectors

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""From the parameters to the loss and its gradient, in float64."""


class Counted:
    """A space that counts its round trips."""

    def __init__(self, vectors: Vectors):
        self.vectors = vectors
        self.messages = []

    def run(self, commands):
        self.messages.append(list(commands))
        return self.vectors.run(commands)


def minimise(
    method: Method, objective: Objective, start: np.ndarray, stop: StopRules, dtype=np.float64, **more
) -> tuple[Result, np.ndarray]:
    """How the method ends, and the parameters in float64."""
    vectors = vectors_at(method, start, dtype)
    result = method.minimise(vectors, evaluation(vectors, objective), stop, **more)
    return result, vectors["parameters"].astype(np.float64)


def vectors_at(method: Method, start: np.ndarray, dtype=np.float64) -> Vectors:
    vectors = Vectors(method.vectors, start.size, dtype)
    vectors["parameters"][:] = start
    return vectors


def evaluation(vectors: Vectors, objective: Objective) -> Callable[[], float]:
    def evaluate() -> float:
        loss, vectors["gradient"][:] = objective(vectors["parameters"].astype(np.float64))
        return loss

    return evaluate


class Digits:
    """Softmax regression with an L2 penalty on scikit-learn's digits, 640 parameters: strictly convex."""

    size = 640

    def __init__(self, penalty: float = 1e-3):
        images, self.labels_n = load_digits(return_X_y=True)
        self.x_ni = images / 16
        self.penalty = penalty
        self.examples = len(self.labels_n)

    def __call__(self, parameters: np.ndarray, examples: np.ndarray | slice = slice(None)) -> tuple[float, np.ndarray]:
        w_oi, x_ni, labels_n = parameters.reshape(10, 64), self.x_ni[examples], self.labels_n[examples]
        z_no = x_ni @ w_oi.T
        log_p_no = z_no - logsumexp(z_no, axis=1, keepdims=True)
        loss = -log_p_no[np.arange(len(labels_n)), labels_n].mean() + self.penalty / 2 * parameters @ parameters
        dz_no = (np.exp(log_p_no) - np.eye(10)[labels_n]) / len(labels_n)
        return float(loss), (dz_no.T @ x_ni).ravel() + self.penalty * parameters


class Quadratic:
    """x.A x / 2 - b.x with eigenvalues of A from 1 to `condition`."""

    def __init__(self, size: int, condition: float, seed: int = 0):
        random = np.random.default_rng(seed)
        q, _ = np.linalg.qr(random.standard_normal((size, size)))
        self.matrix = q * np.geomspace(1, condition, size) @ q.T
        self.b = random.standard_normal(size)
        self.minimum = np.linalg.solve(self.matrix, self.b)
        self.size = size

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        return float(x @ self.matrix @ x / 2 - self.b @ x), self.matrix @ x - self.b
