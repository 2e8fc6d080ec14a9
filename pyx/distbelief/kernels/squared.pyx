# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Squared error over feature-first outputs z [outputs, n]; sums in float64."""

from distbelief.kernels.real cimport real


def squared_error(const real[:, ::1] z_kn, const real[:, ::1] targets_kn, double scale, real[:, ::1] dz_kn=None):
    """Returns 1/2 the sum of (z - target)^2; writes scale (z - target) to `dz_kn`, unless there is none."""
    cdef Py_ssize_t outputs = z_kn.shape[0], n = z_kn.shape[1], k, j
    cdef double loss = 0, error
    assert targets_kn.shape[0] == outputs and targets_kn.shape[1] == n
    assert dz_kn is None or (dz_kn.shape[0] == outputs and dz_kn.shape[1] == n)
    with nogil:
        for k in range(outputs):
            for j in range(n):
                error = <double>z_kn[k, j] - targets_kn[k, j]
                loss += error * error
                if dz_kn is not None:
                    dz_kn[k, j] = <real>(scale * error)
    return loss / 2


def squared_error_of_classes(const real[:, ::1] z_kn, const long long[::1] labels_n, double scale,
                             real[:, ::1] dz_kn=None):
    """The same for targets that are 1 for the class that is the label, and 0 for the others."""
    cdef Py_ssize_t classes = z_kn.shape[0], n = z_kn.shape[1], k, j
    cdef double loss = 0, error
    assert labels_n.shape[0] == n
    assert dz_kn is None or (dz_kn.shape[0] == classes and dz_kn.shape[1] == n)
    with nogil:
        for k in range(classes):
            for j in range(n):
                error = <double>z_kn[k, j] - (1 if labels_n[j] == k else 0)
                loss += error * error
                if dz_kn is not None:
                    dz_kn[k, j] = <real>(scale * error)
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
