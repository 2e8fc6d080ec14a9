# cython: language_level=3
"""Which BLAS computes the float32 products of this process."""

from libc.stdint cimport uintptr_t
from scipy.linalg cimport cython_blas

sgemm = <sgemm_pointer>cython_blas.sgemm


def use_sgemm(size_t address=0):
    """Compute float32 products with the sgemm at `address`, in the Fortran convention and with 32-bit integers.

    0: SciPy's, as in the beginning. The function is called from several threads at once and should use one itself.
    """
    global sgemm
    sgemm = <sgemm_pointer><uintptr_t>address if address else <sgemm_pointer>cython_blas.sgemm
