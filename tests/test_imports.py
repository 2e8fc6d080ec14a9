"""Who imports whom, and who imports MPI."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = Path(__file__).parent


def test_imports_go_down_only(tmp_path):
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert linter, "import-linter belongs to the test extra"
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [linter, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_starts_no_mpi():
    program = """
import importlib, pkgutil, sys, distbelief
for module in pkgutil.walk_packages(distbelief.__path__, "distbelief."):
    if module.name not in ("distbelief.comm.mpi", "distbelief.__main__"):
        importlib.import_module(module.name)
print("mpi4py" in sys.modules, "distbelief.launch.training" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_pytest_imports_no_mpi():
    # By now it has imported every test module that it was told to run.
    assert "mpi4py" not in sys.modules and "distbelief.comm.mpi" not in sys.modules


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_module_imports_mpi(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert not any(name.startswith(("mpi4py", "distbelief.comm.mpi")) for name in imported)
