"""Losses over outputs that are spread over the partitions: only maxima and sums are exchanged, never outputs."""

from typing import Protocol

import numpy as np

from distbelief.errors import UserError
from distbelief.kernels import softmax_band, softmax_band_gradient, softmax_band_score
from distbelief.nn.interval import Interval
from distbelief.nn.losses import Loss, SoftmaxCrossEntropy
from distbelief.partition.peers import Peers


class BandLoss(Protocol):
    """What nn.Loss is, for outputs z [band, n] of which this partition has its band. Collective over the replica."""

    def gradient(self, z_kn: np.ndarray, labels: np.ndarray, dz_kn: np.ndarray) -> float:
        """Returns the mean loss over all outputs, the same on every partition; writes its gradient to `dz_kn`."""
        ...

    def score(self, z_kn: np.ndarray, labels: np.ndarray) -> tuple[float, int | None]:
        """The sum of the losses and the number of examples classified rightly, the same on every partition."""
        ...


def cut_loss(loss: Loss, peers: Peers, band: Interval) -> BandLoss:
    """`loss` over the outputs of which this partition has `band`. Raises UserError if it cannot be cut."""
    if isinstance(loss, SoftmaxCrossEntropy):
        return SoftmaxCrossEntropyBand(peers, band)
    raise UserError(f"a loss of type {type(loss).__name__} cannot be cut over partitions")


class SoftmaxCrossEntropyBand:
    """softmax over all bands from each band's: with m = max of the m_p, sum exp(z - m) = sum_p exp(m_p - m) total_p."""

    def __init__(self, peers: Peers, band: Interval):
        self._peers = peers
        self._first = band.start

    def gradient(self, z_kn: np.ndarray, labels_n: np.ndarray, dz_kn: np.ndarray) -> float:
        n = labels_n.size
        sums = np.empty((3, n))
        softmax_band(z_kn, labels_n, self._first, dz_kn, sums)
        everyone = self._peers.share(sums, "the sums of the softmax")
        weights_pn, total_n, loss = _combine(everyone)
        softmax_band_gradient(labels_n, self._first, 1 / n, weights_pn[self._peers.partition] / total_n / n, dz_kn)
        return loss / n

    def score(self, z_kn: np.ndarray, labels_n: np.ndarray) -> tuple[float, int]:
        sums = np.empty((4, labels_n.size))
        softmax_band_score(z_kn, labels_n, self._first, sums)
        everyone = self._peers.share(sums, "the sums of the softmax")
        _, total_n, loss = _combine(everyone)
        best_n = np.take_along_axis(everyone[:, 3], everyone[:, 0].argmax(axis=0)[None], axis=0)[0]
        return loss, int(((best_n == labels_n) & ~np.isnan(total_n)).sum())


def _combine(sums_pkn: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Each band's exp(m_p - m) [P, n], the sums of exp(z - m) [n], and the sum of -log softmax(z)[label]."""
    peak_n = sums_pkn[:, 0].max(axis=0)
    weights_pn = np.exp(sums_pkn[:, 0] - peak_n)
    total_n = (weights_pn * sums_pkn[:, 1]).sum(axis=0)
    return weights_pn, total_n, float((np.log(total_n) + peak_n - sums_pkn[:, 2].sum(axis=0)).sum())
