# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One-vs-all logistic loss over feature-first scores z [classes, n]; sums in float64."""

from libc.math cimport log

from distbelief.kernels.exponential cimport exponential
from distbelief.kernels.real cimport real

# Factors of at most 2 that a product in float64 can take before its logarithm is due.
cdef Py_ssize_t FACTORS = 1000


def logistic_loss(const real[:, ::1] z_kn, const long long[::1] labels_n, double scale, double[:, ::1] scratch_2n,
                  real[:, ::1] dz_kn=None):
    """Returns the sum over examples and classes of log(1 + exp(-t z)); writes scale times its gradient to `dz_kn`.

    t = 1 for the class that is the label, else -1; dz = -t scale / (1 + exp(t z)). With u = -t z each term is
    max(u, 0) + log(1 + exp(-|u|)), and the logarithms of many terms are one of their product: no term overflows, and
    none costs a logarithm. Without `dz_kn` the loss alone. `scratch_2n` is overwritten.
    """
    cdef Py_ssize_t classes = z_kn.shape[0], n = z_kn.shape[1], k, j
    cdef double loss = 0
    cdef double *total
    cdef double *product
    cdef const real *z
    cdef real *d = NULL
    cdef real u, e, sign, rate = <real>scale
    assert labels_n.shape[0] == n and scratch_2n.shape[0] == 2 and scratch_2n.shape[1] >= n
    assert dz_kn is None or (dz_kn.shape[0] == classes and dz_kn.shape[1] == n)
    if n == 0 or classes == 0:
        return 0.0
    total, product = &scratch_2n[0, 0], &scratch_2n[1, 0]
    with nogil:
        for j in range(n):
            total[j], product[j] = 0, 1
        for k in range(classes):
            z = &z_kn[k, 0]
            if dz_kn is not None:
                d = &dz_kn[k, 0]
            for j in range(n):
                sign = <real>-1 if labels_n[j] == k else <real>1
                u = sign * z[j]
                e = exponential[real](-u if u > 0 else u)
                total[j] += u if u > 0 else <real>0
                product[j] *= 1 + <double>e
                if d != NULL:
                    d[j] = rate * sign * (<real>1 if u > 0 else e) / (1 + e)
            if k % FACTORS == FACTORS - 1:
                for j in range(n):
                    total[j] += log(product[j])
                    product[j] = 1
        for j in range(n):
            loss += total[j] + log(product[j])
    return loss
