# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Softmax with cross-entropy over a band of the classes: z [band, n] holds the scores of classes first, first + 1, ...

Each band sums up its columns in a few numbers; those of all bands together make the whole softmax. Sums in float64.
"""

from libc.math cimport INFINITY, exp

from distbelief.kernels.exponential cimport exponential
from distbelief.kernels.real cimport real


cdef inline double _finite(double peak) noexcept nogil:
    """What is taken off before the exponentials: scores that are all -infinity have none, and make zeros."""
    return peak if peak != -INFINITY else 0


def softmax_band(const real[:, ::1] z_kn, const long long[::1] labels_n, Py_ssize_t first, real[:, ::1] dz_kn,
                 double[:, ::1] sums_3n):
    """Writes to `sums_3n` each column's largest score, the sum of exp(z - largest), and the score of the label.

    The last is 0 where the label lies in another band. `dz_kn` receives exp(z - largest). An empty band has a
    largest score of -infinity.
    """
    cdef Py_ssize_t band = z_kn.shape[0], n = z_kn.shape[1], k, j
    cdef double *peak
    cdef double *total
    cdef const real *z
    cdef real *d
    assert labels_n.shape[0] == n and dz_kn.shape[0] == band and dz_kn.shape[1] == n
    assert sums_3n.shape[0] == 3 and sums_3n.shape[1] == n
    if n == 0:
        return
    with nogil:
        peak, total = &sums_3n[0, 0], &sums_3n[1, 0]
        for j in range(n):
            peak[j], total[j] = z_kn[0, j] if band else -INFINITY, 0
        for k in range(1, band):
            z = &z_kn[k, 0]
            for j in range(n):
                peak[j] = z[j] if z[j] > peak[j] else peak[j]
        for k in range(band):
            z, d = &z_kn[k, 0], &dz_kn[k, 0]
            for j in range(n):
                d[j] = exponential[real](<real>(z[j] - _finite(peak[j])))
                total[j] += d[j]
        for j in range(n):
            k = labels_n[j] - first
            sums_3n[2, j] = z_kn[k, j] if 0 <= k < band else 0


def softmax_band_gradient(const long long[::1] labels_n, Py_ssize_t first, double scale, const double[::1] factor_n,
                          real[:, ::1] dz_kn):
    """Finishes what softmax_band left in `dz_kn`: dz = factor dz - scale onehot(label)."""
    cdef Py_ssize_t band = dz_kn.shape[0], n = dz_kn.shape[1], k, j
    cdef real *d
    assert labels_n.shape[0] == n and factor_n.shape[0] == n
    with nogil:
        for k in range(band):
            d = &dz_kn[k, 0]
            for j in range(n):
                d[j] = <real>(d[j] * factor_n[j])
        for j in range(n):
            k = labels_n[j] - first
            if 0 <= k < band:
                dz_kn[k, j] -= <real>scale


def softmax_band_score(const real[:, ::1] z_kn, const long long[::1] labels_n, Py_ssize_t first,
                       double[:, ::1] sums_4n):
    """Like softmax_band, without a gradient; the fourth number is the class of the largest score, or the first such."""
    cdef Py_ssize_t band = z_kn.shape[0], n = z_kn.shape[1], k, j, best
    cdef double total, peak
    assert labels_n.shape[0] == n and sums_4n.shape[0] == 4 and sums_4n.shape[1] == n
    with nogil:
        for j in range(n):
            best = 0
            for k in range(1, band):
                if z_kn[k, j] > z_kn[best, j]:
                    best = k
            peak, total = z_kn[best, j] if band else -INFINITY, 0
            for k in range(band):
                total += exp(z_kn[k, j] - _finite(peak))
            k = labels_n[j] - first
            sums_4n[0, j], sums_4n[1, j] = peak, total
            sums_4n[2, j] = z_kn[k, j] if 0 <= k < band else 0
            sums_4n[3, j] = first + best
