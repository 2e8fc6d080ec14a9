# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Softmax with cross-entropy over feature-first scores z [classes, n]; sums in float64."""

from cython.parallel cimport prange
from libc.math cimport exp, log

from distbelief.kernels.exponential cimport exponential
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport band_start, bands_of


cdef enum:
    WIDTH = 512  # columns at a time


cdef void _columns(const real *z_kn, const long long *labels, real *dz_kn, double scale, double *loss, double *total,
                   Py_ssize_t classes, Py_ssize_t n, Py_ssize_t width) noexcept nogil:
    """The first `width` of n columns, at most WIDTH: their losses, and dz = scale softmax(z), which may be z."""
    cdef Py_ssize_t k, j
    cdef const real *z
    cdef real *d
    cdef real peak[WIDTH]
    for j in range(width):
        peak[j], total[j] = z_kn[j], 0
    for k in range(1, classes):
        z = z_kn + k * n
        for j in range(width):
            peak[j] = z[j] if z[j] > peak[j] else peak[j]
    for j in range(width):
        loss[j] = <double>peak[j] - z_kn[labels[j] * n + j]
    for k in range(classes):
        z, d = z_kn + k * n, dz_kn + k * n
        for j in range(width):
            d[j] = exponential[real](z[j] - peak[j])
            total[j] += d[j]
    for j in range(width):
        loss[j] += log(total[j])
        total[j] = scale / total[j]
    for k in range(classes):
        d = dz_kn + k * n
        for j in range(width):
            d[j] = <real>(d[j] * total[j])


cdef void _band(const real *z_kn, const long long *labels, real *dz_kn, double scale, double *loss, double *total,
                Py_ssize_t classes, Py_ssize_t n, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Columns first..last-1."""
    while first < last:
        _columns[real](z_kn + first, labels + first, dz_kn + first, scale, loss + first, total + first, classes, n,
                       min(<Py_ssize_t>WIDTH, last - first))
        first += WIDTH


cdef int _check(const long long[::1] labels_n, Py_ssize_t classes) except -1:
    """A label is where a score is read: one out of range would be somebody else's memory."""
    cdef Py_ssize_t j
    for j in range(labels_n.shape[0]):
        if not 0 <= labels_n[j] < classes:
            raise ValueError(f"label {labels_n[j]} at index {j}, expected 0 to {classes - 1}")
    return 0


def softmax_cross_entropy(const real[:, ::1] z_kn, const long long[::1] labels_n, double scale,
                          real[:, ::1] dz_kn, double[:, ::1] scratch_2n):
    """Returns the sum over examples of -log softmax(z)[label]; writes scale times its gradient to `dz_kn`.

    dz = scale (softmax(z) - onehot(label)); `dz_kn` may be `z_kn` itself. Scores are shifted by their maximum, so none
    overflows. Raises ValueError for a label beyond 0..classes-1. `scratch_2n` is overwritten. Threads share the
    columns.
    """
    cdef Py_ssize_t classes = z_kn.shape[0], n = z_kn.shape[1], j
    cdef double loss = 0
    cdef int bands = bands_of(20.0 * classes * n), band
    assert labels_n.shape[0] == n and dz_kn.shape[0] == classes and dz_kn.shape[1] == n
    assert scratch_2n.shape[0] == 2 and scratch_2n.shape[1] >= n
    if n == 0 or classes == 0:
        return 0.0
    _check(labels_n, classes)
    with nogil:
        for band in prange(bands, schedule="static", use_threads_if=bands > 1):
            _band[real](&z_kn[0, 0], &labels_n[0], &dz_kn[0, 0], scale, &scratch_2n[0, 0], &scratch_2n[1, 0], classes,
                        n, band_start(n, bands, band), band_start(n, bands, band + 1))
        for j in range(n):
            loss += scratch_2n[0, j]
            dz_kn[labels_n[j], j] -= <real>scale
    return loss


def softmax_score(const real[:, ::1] z_kn, const long long[::1] labels_n):
    """Returns (sum of the cross-entropies, number of examples whose label has the highest score).

    Ties go to the lowest class. A column with a NaN counts as wrong, and the sum is then a NaN. Raises ValueError for a
    label beyond 0..classes-1.
    """
    cdef Py_ssize_t classes = z_kn.shape[0], n = z_kn.shape[1], k, j, best
    cdef double loss = 0, total, peak
    cdef Py_ssize_t right = 0
    assert labels_n.shape[0] == n
    if n == 0 or classes == 0:
        return 0.0, 0
    _check(labels_n, classes)
    with nogil:
        for j in range(n):
            best = 0
            for k in range(1, classes):
                if z_kn[k, j] > z_kn[best, j]:
                    best = k
            peak, total = z_kn[best, j], 0
            for k in range(classes):
                total += exp(z_kn[k, j] - peak)
            loss += log(total) + peak - z_kn[labels_n[j], j]
            if best == labels_n[j] and total == total:
                right += 1
    return loss, right
