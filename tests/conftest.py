"""Wiring of the tests: shared modules are imported as `comm.suite`, `mpi.launcher`, from this folder."""

import os
import sys
from pathlib import Path

import pytest

# One thread for each process, as ranks have, before any library asks.
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mpi: starts ranks under mpiexec")
