"""Wiring of the tests: shared modules are imported as `comm.suite`, `mpi.launcher`, from this folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mpi: starts ranks under mpiexec")
