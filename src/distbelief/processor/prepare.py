"""Cores and BLAS for the kernels of this process, at run time."""

from typing import Literal

from threadpoolctl import ThreadpoolController

from distbelief.kernels import use_sgemm, use_threads
from distbelief.processor import mkl

Blas = Literal["scipy", "mkl"]


def prepare(threads: int = 1, blas: Blas = "scipy") -> None:
    """Let the kernels use so many cores, and the sgemm of one BLAS for float32. Local; for the thread that calls it.

    Each thread of a kernel has BLAS calls of its own, so every BLAS in this process is told to use one thread. Call it
    before a network is built: its scratch memory is planned for the threads. Raises UserError if MKL is asked for and
    missing.
    """
    sgemm = mkl.address("sgemm_") if blas == "mkl" else 0
    # A BLAS may share the kernels' OpenMP, and then takes its number of threads with it: the kernels' comes last.
    ThreadpoolController().select(user_api="blas").limit(limits=1)
    use_threads(threads)
    use_sgemm(sgemm)
