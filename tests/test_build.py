"""meson.build, which packages are made with, and setup.py, for builds in place, describe the same thing."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
BESIDE = Path(sys.executable).parent
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def meson(tmp_path_factory):
    """Calls meson with the tools of this environment."""
    environment = {**os.environ, "PATH": f"{BESIDE}{os.pathsep}{os.environ['PATH']}"}

    def call(*words: str | Path) -> str:
        command = [sys.executable, "-m", "mesonbuild.mesonmain", *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def build(meson, tmp_path_factory) -> Path:
    """A build folder for this machine's own CPU."""
    folder = tmp_path_factory.mktemp("build")
    meson("setup", folder)
    return folder


@pytest.fixture(scope="module")
def installed(meson, build) -> set[str]:
    """What meson would install, as paths below site-packages."""
    places = [Path(place).parts for place in json.loads(meson("introspect", "--installed", build)).values()]
    return {"/".join(parts[parts.index("distbelief") :]) for parts in places if "distbelief" in parts}


@pytest.fixture
def setup_py(monkeypatch) -> dict:
    """The arguments that setup.py gives to setuptools."""
    given = {}
    monkeypatch.setattr("Cython.Build.cythonize", lambda extensions, **settings: extensions)
    monkeypatch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


@needs_compiler
def test_both_build_the_same_modules(setup_py, installed):
    by_setup_py = {extension.name for extension in setup_py["ext_modules"]}
    by_meson = {place.split(".")[0].replace("/", ".") for place in installed if place.endswith(".so")}
    assert by_setup_py == by_meson
    assert "distbelief.kernels.dense" in by_meson


@needs_compiler
def test_both_compile_with_the_same_flags(setup_py, build):
    flags = {flag for extension in setup_py["ext_modules"] for flag in extension.extra_compile_args}
    by_meson = _c_commands(build)
    assert "-ffp-contract=fast" in flags
    assert [flag for flag in sorted(flags) if flag not in by_meson] == []


def test_setup_py_knows_all_packages(setup_py):
    assert set(setup_py["packages"]) == {
        ".".join(path.parent.relative_to(SRC).parts) for path in SRC.rglob("__init__.py")
    }


@needs_compiler
def test_all_python_files_are_installed(installed):
    sources = {str(path.relative_to(SRC)) for ending in ("py", "pyi") for path in SRC.rglob(f"*.{ending}")}
    assert {place for place in installed if not place.endswith(".so")} == sources


def test_every_kernel_has_its_stub():
    kernels = {path.stem for path in (ROOT / "pyx" / "distbelief" / "kernels").glob("*.pyx")}
    assert kernels == {path.stem for path in (SRC / "distbelief" / "kernels").glob("*.pyi")}


@needs_compiler
def test_baseline_is_for_no_particular_cpu(meson, build, tmp_path):
    meson("setup", "-Dcpu=baseline", "-Dopenmp=disabled", tmp_path / "build")
    portable = _c_commands(tmp_path / "build")
    assert not any(word in portable for word in ("-march", "-mcpu", "-mtune", "-fopenmp"))
    assert "=native" in _c_commands(build)


def test_make_test_bench_has_all_tests_that_need_pytorch_or_mkl():
    (command,) = re.findall(r"-m pytest (tests/kernels .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wanting = re.compile(r"""importorskip\(["']torch|^ *(?:import|from) torch\b|mkl\.library\(""", re.MULTILINE)
    files = [path for path in (ROOT / "tests").rglob("*.py") if wanting.search(path.read_text())]
    named = [ROOT / word for word in command.split()]
    assert len(files) > 5 and all(path.exists() for path in named)
    assert [str(path) for path in files if not any(path.is_relative_to(part) for part in named)] == []


def _c_commands(build: Path) -> str:
    return "\n".join(entry["command"] for entry in json.loads((build / "compile_commands.json").read_text()))
