"""Losses over the outputs of a network's last layer."""

from typing import Protocol

import numpy as np

from distbelief.kernels import softmax_cross_entropy, softmax_score


class Loss(Protocol):
    """A loss of outputs z [outputs, n] against labels. It owns no arrays. All is Local."""

    def gradient(self, z_kn: np.ndarray, labels: np.ndarray, dz_kn: np.ndarray, scratch: np.ndarray) -> float:
        """Returns the mean loss over the n examples and writes its gradient to `dz_kn`."""
        ...

    def score(self, z_kn: np.ndarray, labels: np.ndarray) -> tuple[float, int | None]:
        """The sum of the losses, and the number of examples classified rightly; None if there is no right and wrong."""
        ...

    def scratch(self, n: int) -> int:
        """Elements of float64 that `gradient` needs for `n` examples."""
        ...


class SoftmaxCrossEntropy:
    """The mean over a minibatch of -log softmax(z)[label]; z [classes, n], labels int64 [n]."""

    def gradient(self, z_kn: np.ndarray, labels_n: np.ndarray, dz_kn: np.ndarray, scratch: np.ndarray) -> float:
        n = labels_n.size
        return softmax_cross_entropy(z_kn, labels_n, 1 / n, dz_kn, scratch.reshape(2, n)) / n

    def score(self, z_kn: np.ndarray, labels_n: np.ndarray) -> tuple[float, int]:
        return softmax_score(z_kn, labels_n)

    def scratch(self, n: int) -> int:
        return 2 * n
