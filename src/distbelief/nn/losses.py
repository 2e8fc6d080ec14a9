"""Losses over the outputs of a network's last layer."""

import math
from typing import Protocol

import numpy as np

from distbelief.errors import UserError
from distbelief.kernels import (
    count_right,
    logistic_loss,
    softmax_cross_entropy,
    softmax_score,
    squared_error,
    squared_error_of_classes,
)
from distbelief.nn.layers import Shape


class Loss(Protocol):
    """A loss of outputs z [outputs, n] against labels: int64 [n], classes. It owns no arrays. All is Local."""

    def check(self, outputs: Shape) -> None:
        """Raises UserError if a network whose last layer has these outputs cannot have this loss."""
        ...

    def gradient(self, z_kn: np.ndarray, labels: np.ndarray, dz_kn: np.ndarray, scratch: np.ndarray) -> float:
        """Returns the mean loss over the n examples and writes its gradient to `dz_kn`, which may be `z_kn` itself."""
        ...

    def score(self, z_kn: np.ndarray, labels: np.ndarray, scratch: np.ndarray) -> tuple[float, int | None]:
        """The sum of the losses, and the number of examples classified rightly; None if there is no right and wrong."""
        ...

    def scratch(self, n: int) -> int:
        """Elements of float64 that `gradient` and `score` need for `n` examples, at least."""
        ...


class _Classes:
    """What the losses of classification have in common."""

    def check(self, outputs: Shape) -> None:
        if math.prod(outputs) < 2:
            raise UserError(
                f"outputs of shape {list(outputs)} under a loss over classes, expected [classes] with 2 or more"
            )

    def scratch(self, n: int) -> int:
        return 2 * n


class SoftmaxCrossEntropy(_Classes):
    """The mean over a minibatch of -log softmax(z)[label]; z [classes, n], labels int64 [n]."""

    def gradient(self, z_kn: np.ndarray, labels_n: np.ndarray, dz_kn: np.ndarray, scratch: np.ndarray) -> float:
        n = labels_n.size
        return softmax_cross_entropy(z_kn, labels_n, 1 / n, dz_kn, scratch[: 2 * n].reshape(2, n)) / n

    def score(self, z_kn: np.ndarray, labels_n: np.ndarray, scratch: np.ndarray) -> tuple[float, int]:
        return softmax_score(z_kn, labels_n)


class OneVsAllLogistic(_Classes):
    """The mean over a minibatch of sum_k log(1 + exp(-t_k z_k)), t = 1 for the label and -1 for other classes.

    The 21k logistic units of the paper's image network (Dean et al. 2012, section 5): each says on its own whether
    the example is of its class. The highest of them is the answer.
    """

    def gradient(self, z_kn: np.ndarray, labels_n: np.ndarray, dz_kn: np.ndarray, scratch: np.ndarray) -> float:
        n = labels_n.size
        return logistic_loss(z_kn, labels_n, 1 / n, scratch[: 2 * n].reshape(2, n), dz_kn) / n

    def score(self, z_kn: np.ndarray, labels_n: np.ndarray, scratch: np.ndarray) -> tuple[float, int]:
        n = labels_n.size
        return logistic_loss(z_kn, labels_n, 1, scratch[: 2 * n].reshape(2, n)), count_right(z_kn, labels_n)


class SquaredError:
    """The mean over a minibatch of 1/2 sum_k (z_k - target_k)^2.

    `labels`: real targets of z's dtype, [outputs, n], or classes, int64 [n]: 1 for the label and 0 for others. Classes
    are answered by the highest output; with real targets there is no right and wrong.
    """

    def check(self, outputs: Shape) -> None:
        """Any number will do."""

    def gradient(self, z_kn: np.ndarray, labels: np.ndarray, dz_kn: np.ndarray, scratch: np.ndarray) -> float:
        n = z_kn.shape[1]
        return self._loss(labels)(z_kn, labels, 1 / n, dz_kn) / n

    def score(self, z_kn: np.ndarray, labels: np.ndarray, scratch: np.ndarray) -> tuple[float, int | None]:
        return self._loss(labels)(z_kn, labels, 1), count_right(z_kn, labels) if labels.ndim == 1 else None

    def scratch(self, n: int) -> int:
        return 0

    @staticmethod
    def _loss(labels: np.ndarray):
        return squared_error_of_classes if labels.ndim == 1 else squared_error


LOSSES: dict[str, type[Loss]] = {
    "softmax": SoftmaxCrossEntropy,
    "logistic": OneVsAllLogistic,
    "squared": SquaredError,
}
