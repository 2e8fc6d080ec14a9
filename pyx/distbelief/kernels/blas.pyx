# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Who computes the products of this process."""

from libc.stdint cimport uintptr_t
from scipy.linalg cimport cython_blas

cdef extern from "distbelief/kernels/amx_tiles.h":
    bint amx_permitted() nogil

sgemm = <sgemm_pointer>cython_blas.sgemm
scipys = True
gemm16 = NULL
amx = False


def use_sgemm(size_t address=0):
    """Compute float32 products with the sgemm at `address`, in the Fortran convention and with 32-bit integers.

    0: SciPy's, as in the beginning. The function is called from several threads at once and should use one itself.
    """
    global sgemm, scipys
    scipys = not address
    sgemm = <sgemm_pointer><uintptr_t>address if address else <sgemm_pointer>cython_blas.sgemm


def use_gemm16(size_t address=0):
    """Compute bfloat16 products with the cblas_gemm_bf16bf16f32 at `address`, 32-bit integers. 0: by sgemm, widened."""
    global gemm16
    gemm16 = <gemm16_pointer><uintptr_t>address


def use_amx(bint wanted=True):
    """Compute bfloat16 products by AMX, in kernels of our own; whether it is so now: CPU and system must have it."""
    global amx
    amx = wanted and amx_permitted()
    return amx
