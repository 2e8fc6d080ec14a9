"""Losses over the outputs of a network's last layer."""

import numpy as np

from distbelief.kernels import softmax_cross_entropy, softmax_score


class SoftmaxCrossEntropy:
    """The mean over a minibatch of -log softmax(z)[label]; z [classes, n]."""

    def __init__(self, batch: int):
        self._scratch = np.empty((2, batch))

    def gradient(self, z_kn: np.ndarray, labels_n: np.ndarray, dz_kn: np.ndarray) -> float:
        """Returns the mean loss and writes its gradient to `dz_kn`."""
        n = labels_n.size
        return softmax_cross_entropy(z_kn, labels_n, 1 / n, dz_kn, self._scratch) / n

    def score(self, z_kn: np.ndarray, labels_n: np.ndarray) -> tuple[float, int]:
        """The sum of the losses, and the number of examples classified rightly."""
        return softmax_score(z_kn, labels_n)
