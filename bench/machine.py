"""What figures depend on: the facts of the machine.

Import it before NumPy: it gives each process one BLAS thread, as a rank has, unless the environment says otherwise.
"""

import os
import platform

THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
for _name in THREADS:
    os.environ.setdefault(_name, "1")  # before NumPy loads its BLAS
LOAD = os.getloadavg()[0]  # before the measurement adds its own

import numpy as np  # noqa: E402
import scipy  # noqa: E402


def facts() -> dict:
    """For the line of JSON that a measurement ends with. `load`: processes that wanted to run when it began."""

    def blas(package) -> str:
        found = package.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}"

    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(LOAD, 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numpy_blas": blas(np),
        "scipy": scipy.__version__,
        "scipy_blas": blas(scipy),
        "threads": {name: os.environ[name] for name in THREADS},
    }


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
