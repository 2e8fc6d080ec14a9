"""Losses over outputs that are spread over the partitions: only maxima and sums are exchanged, never outputs."""

from typing import Protocol

import numpy as np

from distbelief.errors import UserError
from distbelief.kernels import softmax_band, softmax_band_gradient, softmax_band_score
from distbelief.nn.interval import Interval
from distbelief.nn.losses import Loss, OneVsAllLogistic, SoftmaxCrossEntropy, SquaredError
from distbelief.partition.peers import Peers


class BandLoss(Protocol):
    """What nn.Loss is, for outputs z [band, n] of which this partition has its band. Collective over the replica."""

    def gradient(self, z_kn: np.ndarray, labels: np.ndarray, dz_kn: np.ndarray) -> float:
        """Returns the mean loss over all outputs, the same on every partition; writes its gradient to `dz_kn`."""
        ...

    def score(self, z_kn: np.ndarray, labels: np.ndarray) -> tuple[float, int | None]:
        """The sum of the losses and the number of examples classified rightly, the same on every partition."""
        ...


def cut_loss(loss: Loss, peers: Peers, band: Interval, batch: int) -> BandLoss:
    """`loss` over the outputs of which this partition has `band`. Raises UserError if it cannot be cut."""
    if isinstance(loss, SoftmaxCrossEntropy):
        return SoftmaxCrossEntropyBand(peers, band)
    if isinstance(loss, OneVsAllLogistic | SquaredError):
        return SummedBand(loss, peers, band, batch)
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
        return loss, _right(everyone[:, 0], everyone[:, 3], labels_n, np.isnan(total_n))


class SummedBand:
    """A loss that is a sum over the outputs: each band's own, and one number of each to be exchanged."""

    def __init__(self, loss: OneVsAllLogistic | SquaredError, peers: Peers, band: Interval, batch: int):
        self._loss = loss
        self._peers = peers
        self._band = band
        self._scratch = np.empty(loss.scratch(batch))

    def gradient(self, z_kn: np.ndarray, labels: np.ndarray, dz_kn: np.ndarray) -> float:
        loss = self._loss.gradient(z_kn, self._within(labels), dz_kn, self._scratch)
        return float(self._peers.share(np.array([loss]), "the sum of the loss").sum())

    def score(self, z_kn: np.ndarray, labels: np.ndarray) -> tuple[float, int | None]:
        """What is exchanged: a part of the loss, each column's highest output (a NaN if there is one), its class."""
        loss, _ = self._loss.score(z_kn, self._within(labels), self._scratch)
        peaks = np.full((3, z_kn.shape[1]), -np.inf)
        peaks[0] = loss / z_kn.shape[1]
        if self._band.size:
            peaks[1], peaks[2] = z_kn.max(axis=0), z_kn.argmax(axis=0) + self._band.start
        everyone = self._peers.share(peaks, "the sums of the loss")
        total = float(everyone[:, 0].sum())
        if labels.ndim > 1:
            return total, None
        return total, _right(everyone[:, 1], everyone[:, 2], labels, np.isnan(everyone[:, 1]).any(axis=0))

    def _within(self, labels: np.ndarray) -> np.ndarray:
        """Classes counted from the first of the band, or the band's real targets."""
        return labels - self._band.start if labels.ndim == 1 else labels[slice(*self._band)]


def _right(peaks_pn: np.ndarray, classes_pn: np.ndarray, labels_n: np.ndarray, stray_n: np.ndarray) -> int:
    """How many labels are the class of the highest of all bands' peaks, the lowest of several; none that `stray_n`."""
    best_n = np.take_along_axis(classes_pn, peaks_pn.argmax(axis=0)[None], axis=0)[0]
    return int(((best_n == labels_n) & ~stray_n).sum())


def _combine(sums_pkn: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Each band's exp(m_p - m) [P, n], the sums of exp(z - m) [n], and the sum of -log softmax(z)[label]."""
    peak_n = sums_pkn[:, 0].max(axis=0)
    weights_pn = np.exp(sums_pkn[:, 0] - peak_n)
    total_n = (weights_pn * sums_pkn[:, 1]).sum(axis=0)
    return weights_pn, total_n, float((np.log(total_n) + peak_n - sums_pkn[:, 2].sum(axis=0)).sum())
