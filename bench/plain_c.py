"""Plain C loops as rivals of compiled kernels: adagrad.c, built with the kernels' flags, if there is a compiler."""

import ctypes
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from timing import Call

FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]


def adagrad(parameters: np.ndarray, gradient: np.ndarray, squares: np.ndarray, rate: float) -> Call | None:
    """The update of these float32 vectors, in place; None without a compiler."""
    library = _library(Path(__file__).with_name("adagrad.c"))
    if library is None:
        return None
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (parameters, gradient, squares)]
    function, rest = library.adagrad, (ctypes.c_float(rate), ctypes.c_size_t(parameters.size))
    return lambda: function(*pointers, *rest)


def _library(source: Path) -> ctypes.CDLL | None:
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "loops.so")
        command = [compiler, *FLAGS, "-shared", "-fPIC", source, "-o", target, "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return ctypes.CDLL(target)
