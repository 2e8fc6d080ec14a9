"""Cores, BLAS and bfloat16 for the kernels of this process, at run time."""

from typing import Literal

from threadpoolctl import ThreadpoolController

from distbelief.kernels import kernels16, use_gemm16, use_kernels16, use_sgemm, use_threads
from distbelief.processor import cpu, mkl
from distbelief.processor.registers import knows_avx512

Blas = Literal["scipy", "mkl"]

# Extensions of the instruction set with products of bfloat16: without them MKL has such products too, but slow ones.
_BFLOAT16 = ("amx_bf16", "avx512_bf16")
# How our own kernels use them, the faster first.
OURS = ("amx", "avx512")
_NAMES = {"amx": "AMX", "avx512": "AVX512-BF16"}
_PRODUCT = "cblas_gemm_bf16bf16f32"


def prepare(threads: int = 1, blas: Blas = "scipy", dtype: str = "float32") -> str | None:
    """Let the kernels use so many cores, the sgemm of one BLAS for float32, and what there is for bfloat16: our own
    products (by AMX, or else by AVX512-BF16), or else those of MKL.

    Local; for the thread that calls it. Each thread of a kernel has BLAS calls of its own, so every BLAS in this
    process is told to use one thread. Call it before a network is built: its scratch memory is planned for all this.
    Returns one line to say to the user if `dtype` is bfloat16 and there are no products of it. Raises UserError if MKL
    is asked for and missing.
    """
    sgemm = mkl.address("sgemm_") if blas == "mkl" else 0
    narrow = dtype == "bfloat16"
    ours = use_kernels16(*OURS) if narrow else use_kernels16()
    lack = _lack_of_bfloat16() if narrow and not ours else None
    # A BLAS may share the kernels' OpenMP, and then takes its number of threads with it: the kernels' comes last.
    ThreadpoolController().select(user_api="blas").limit(limits=1)
    use_threads(threads)
    use_sgemm(sgemm, knows_avx512(blas))
    use_gemm16(mkl.address(_PRODUCT) if narrow and lack is None and not ours else 0)
    return (
        lack and f"bfloat16: {lack}; its numbers are widened and multiplied in float32, no faster than float32 itself"
    )


def bfloat16() -> str:
    """How products of bfloat16 would be computed in this process, in words. Local."""
    ours = kernels16(*OURS)
    if ours is not None:
        return f"by {_NAMES[ours]}, in kernels of ours"
    lack = _lack_of_bfloat16()
    return "by MKL" if lack is None else f"widened to float32: {lack}"


def _lack_of_bfloat16() -> str | None:
    if not cpu.features() & set(_BFLOAT16):
        return f"this CPU has neither {' nor '.join(_BFLOAT16)}"
    if mkl.library() is None:
        return "MKL is not installed (the extra distbelief[mkl])"
    return None if mkl.has(_PRODUCT) else f"this MKL has no {_PRODUCT}, expected version 2021 or later"
