# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One-vs-all logistic loss over feature-first scores z [classes, n]; sums in float64."""

from cython.parallel cimport prange
from libc.math cimport log

from distbelief.kernels.exponential cimport exponential
from distbelief.kernels.real cimport real
from distbelief.kernels.threads cimport band_start, bands_of

# Factors of at most 2 that a product in float64 can take before its logarithm is due.
cdef Py_ssize_t FACTORS = 1000
# Below, 1 + e would keep less of e than float32 does, and log(1 + e) is e - e^2 / 2.
cdef float SMALL = 2.0 ** -27


cdef void _columns(const real *z_kn, const long long *labels, real rate, real *dz_kn, double *total, double *product,
                   Py_ssize_t classes, Py_ssize_t n, Py_ssize_t width) noexcept nogil:
    """The first `width` of n columns: their losses in `total`, their gradients in `dz_kn`, unless that is NULL."""
    cdef Py_ssize_t k, j
    cdef const real *z
    cdef real *d = NULL
    cdef real u, e, small, sign
    for j in range(width):
        total[j], product[j] = 0, 1
    for k in range(classes):
        z = z_kn + k * n
        if dz_kn != NULL:
            d = dz_kn + k * n
        for j in range(width):
            sign = <real>-1 if labels[j] == k else <real>1
            u = sign * z[j]
            e = exponential[real](-u if u > 0 else u)
            small = e if e < (SMALL if u <= 0 else <real>0) else <real>0
            total[j] += (u if u > 0 else <real>0) + (small - <real>0.5 * small * small)
            product[j] *= 1 + <double>(e - small)
            if d != NULL:
                d[j] = rate * sign * (<real>1 if u > 0 else e) / (1 + e)
        if k % FACTORS == FACTORS - 1:
            for j in range(width):
                total[j] += log(product[j])
                product[j] = 1
    for j in range(width):
        total[j] += log(product[j])


def logistic_loss(const real[:, ::1] z_kn, const long long[::1] labels_n, double scale, double[:, ::1] scratch_2n,
                  real[:, ::1] dz_kn=None):
    """Returns the sum over examples and classes of log(1 + exp(-t z)); writes scale times its gradient to `dz_kn`.

    t = 1 for the class that is the label, else -1; dz = -t scale / (1 + exp(t z)). With u = -t z each term is
    max(u, 0) + log(1 + exp(-|u|)), and the logarithms of many terms are one of their product: no term overflows, and
    none costs a logarithm. Without `dz_kn` the loss alone. `scratch_2n` is overwritten. Threads share the columns.
    """
    cdef Py_ssize_t classes = z_kn.shape[0], n = z_kn.shape[1], first, j
    cdef double loss = 0
    cdef real *dz = NULL
    cdef int bands = bands_of(20.0 * classes * n), band
    assert labels_n.shape[0] == n and scratch_2n.shape[0] == 2 and scratch_2n.shape[1] >= n
    assert dz_kn is None or (dz_kn.shape[0] == classes and dz_kn.shape[1] == n)
    if n == 0 or classes == 0:
        return 0.0
    if dz_kn is not None:
        dz = &dz_kn[0, 0]
    with nogil:
        for band in prange(bands, schedule="static", use_threads_if=bands > 1):
            first = band_start(n, bands, band)
            if first < n:
                _columns[real](&z_kn[0, 0] + first, &labels_n[first], <real>scale, NULL if dz == NULL else dz + first,
                               &scratch_2n[0, first], &scratch_2n[1, first], classes, n,
                               band_start(n, bands, band + 1) - first)
        for j in range(n):
            loss += scratch_2n[0, j]
    return loss
