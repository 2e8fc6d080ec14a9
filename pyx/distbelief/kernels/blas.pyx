# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Who computes the products of this process."""

from libc.stdint cimport uintptr_t
from scipy.linalg cimport cython_blas

cdef extern from "distbelief/kernels/multiply16.h":
    cdef enum:
        BY_NOTHING
        BY_AVX512
        BY_AMX

    bint multiply16_permitted(int way) nogil

sgemm = <sgemm_pointer>cython_blas.sgemm
scipys = True
widest = True
gemm16 = NULL
way16 = BY_NOTHING

_WAYS = {"amx": BY_AMX, "avx512": BY_AVX512}


def use_sgemm(size_t address=0, bint knows_avx512=True):
    """Compute float32 products with the sgemm at `address`, in the Fortran convention and with 32-bit integers.

    0: SciPy's, as in the beginning. The function is called from several threads at once and should use one itself.
    `knows_avx512`: whether it uses these registers where the CPU has them. If not, products of dense layers are
    computed in blocks of ours whatever their size, float64's too; else only those that these are faster for.
    """
    global sgemm, scipys, widest
    scipys, widest = not address, knows_avx512
    sgemm = <sgemm_pointer><uintptr_t>address if address else <sgemm_pointer>cython_blas.sgemm


def use_gemm16(size_t address=0):
    """Compute bfloat16 products with the cblas_gemm_bf16bf16f32 at `address`, 32-bit integers. 0: by sgemm, widened."""
    global gemm16
    gemm16 = <gemm16_pointer><uintptr_t>address


def kernels16(*wanted: str):
    """The first of the `wanted` ways to multiply bfloat16 that CPU and system have; None if none of them.

    "amx": its tiles; "avx512": AVX512-BF16.
    """
    return next((name for name in wanted if multiply16_permitted(_WAYS[name])), None)


def use_kernels16(*wanted: str):
    """Compute bfloat16 products in kernels of our own, by the way that `kernels16` names.

    Returns which it is, or None: then, and if none is wanted, they are computed by others.
    """
    global way16
    name = kernels16(*wanted)
    way16 = BY_NOTHING if name is None else _WAYS[name]
    return name
