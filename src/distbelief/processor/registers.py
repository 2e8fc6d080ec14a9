"""Whether a BLAS uses AVX-512 where the CPU has it: one that is older than the CPU may take it for another."""

from threadpoolctl import ThreadpoolController

from distbelief.processor import cpu

# What OpenBLAS calls the kernels that know of no such registers.
_WITHOUT = {"prescott", "nehalem", "sandybridge", "haswell", "zen"}


def knows_avx512(blas: str) -> bool:
    """Of SciPy's BLAS ("scipy"), as far as it tells, or MKL ("mkl"), which uses them on Intel's CPUs. Local."""
    if blas == "mkl":
        return cpu.vendor() in ("GenuineIntel", "")
    found = ThreadpoolController().select(internal_api="openblas").info()
    scipys = [library for library in found if "scipy" in library["filepath"]] or found
    return not any(library["architecture"].lower() in _WITHOUT for library in scipys)
