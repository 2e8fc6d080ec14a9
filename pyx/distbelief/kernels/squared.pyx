# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Squared error over feature-first outputs z [outputs, n]; sums in float64."""

from cython.parallel cimport prange

from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport bands_of


# Parts of the outputs, each with a sum of its own: the total is the same for any number of threads.
cdef enum:
    PARTS = 64
    LANES = 16  # sums side by side: one alone would wait for each addition


cdef inline void _lanes(const real *z, const real *targets, const long long *labels, double scale, real *dz,
                        Py_ssize_t k, Py_ssize_t j, Py_ssize_t n, Py_ssize_t count, double *sums) noexcept nogil:
    """`count` <= LANES numbers of row k, from column j on: their squared errors are added to `sums`."""
    cdef Py_ssize_t l, i = k * n + j
    cdef double error
    for l in range(count):
        if targets != NULL:
            error = <double>z[i + l] - targets[i + l]
        else:
            error = <double>z[i + l] - <double>(labels[j + l] == k)
        sums[l] += error * error
        if dz != NULL:
            dz[i + l] = <real>(scale * error)


cdef inline double _rows(const real *z, const real *targets, const long long *labels, double scale, real *dz,
                         Py_ssize_t first, Py_ssize_t last, Py_ssize_t n) noexcept nogil:
    """The sum of squared errors of the rows first..last-1; the targets are `targets` or, if that is NULL, by labels."""
    cdef Py_ssize_t k, j
    cdef double loss = 0
    cdef double sums[LANES]
    for j in range(LANES):
        sums[j] = 0
    for k in range(first, last):
        j = 0
        while j < n:
            if n - j >= LANES:  # a constant: loops without ends
                _lanes(z, targets, labels, scale, dz, k, j, n, LANES, sums)
            else:
                _lanes(z, targets, labels, scale, dz, k, j, n, n - j, sums)
            j += LANES
    for j in range(LANES):
        loss += sums[j]
    return loss


cdef double _total(const real *z, const real *targets, const long long *labels, double scale, real *dz,
                   Py_ssize_t outputs, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t part
    cdef double loss = 0
    cdef double losses[PARTS]
    cdef bint threaded = bands_of(4.0 * outputs * n) > 1
    for part in prange(PARTS, schedule="static", use_threads_if=threaded):
        losses[part] = _rows[real](z, targets, labels, scale, dz, outputs * part // PARTS,
                                   outputs * (part + 1) // PARTS, n)
    for part in range(PARTS):
        loss += losses[part]
    return loss


def squared_error(const real[:, ::1] z_kn, const real[:, ::1] targets_kn, double scale, real[:, ::1] dz_kn=None):
    """Returns 1/2 the sum of (z - target)^2; writes scale (z - target) to `dz_kn`, unless there is none.

    Threads share the rows.
    """
    cdef Py_ssize_t outputs = z_kn.shape[0], n = z_kn.shape[1]
    cdef double loss
    cdef real *dz = NULL
    assert targets_kn.shape[0] == outputs and targets_kn.shape[1] == n
    assert dz_kn is None or (dz_kn.shape[0] == outputs and dz_kn.shape[1] == n)
    if n == 0 or outputs == 0:
        return 0.0
    if dz_kn is not None:
        dz = &dz_kn[0, 0]
    with nogil:
        loss = _total[real](&z_kn[0, 0], &targets_kn[0, 0], NULL, scale, dz, outputs, n)
    return loss / 2


def squared_error_of_classes(const real[:, ::1] z_kn, const long long[::1] labels_n, double scale,
                             real[:, ::1] dz_kn=None):
    """The same for targets that are 1 for the class that is the label, and 0 for the others."""
    cdef Py_ssize_t classes = z_kn.shape[0], n = z_kn.shape[1]
    cdef double loss
    cdef real *dz = NULL
    assert labels_n.shape[0] == n
    assert dz_kn is None or (dz_kn.shape[0] == classes and dz_kn.shape[1] == n)
    if n == 0 or classes == 0:
        return 0.0
    if dz_kn is not None:
        dz = &dz_kn[0, 0]
    with nogil:
        loss = _total[real](&z_kn[0, 0], NULL, &labels_n[0], scale, dz, classes, n)
    return loss / 2


def count_right(const real[:, ::1] z_kn, const long long[::1] labels_n):
    """The number of examples whose label has the highest output.

    Ties go to the lowest class. A column with a NaN counts as wrong.
    """
    cdef Py_ssize_t classes = z_kn.shape[0], n = z_kn.shape[1], k, j, best
    cdef Py_ssize_t right = 0
    cdef bint stray
    assert labels_n.shape[0] == n
    if classes == 0:
        return 0
    with nogil:
        for j in range(n):
            best, stray = 0, False
            for k in range(classes):
                if z_kn[k, j] > z_kn[best, j]:
                    best = k
                stray = stray or z_kn[k, j] != z_kn[k, j]
            if best == labels_n[j] and not stray:
                right += 1
    return right
