import importlib.metadata
import os

import pytest

import distbelief
from distbelief.kernels import used_threads
from distbelief.launch import information as module
from distbelief.launch.information import information


@pytest.fixture
def facts(monkeypatch) -> dict[str, str]:
    """What `information` says, by its first words. (The column of the facts begins at 14.)"""
    for name in list(os.environ):
        if name.startswith(("OMPI_COMM_WORLD_", "PMI_", "PMIX_", "SLURM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    lines = information()
    assert all(line[13] == " " and line[14:].strip() for line in lines)
    return {line[:13].strip(): line[14:] for line in lines}


def test_versions(facts):
    assert facts["distbelief"] == distbelief.__version__
    for name in ("numpy", "scipy", "mpi4py", "msgspec"):
        assert facts[name] == importlib.metadata.version(name)


def test_blas_and_mpi(facts):
    assert "(SciPy's)" in facts["BLAS"]
    assert facts["MPI"].endswith("not started: no launcher")


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("knows", [False, True])
def test_who_multiplies(monkeypatch, built, knows):
    monkeypatch.setattr(module, "BLOCKS_OF_ANY_SIZE", built)
    monkeypatch.setattr(module, "knows_avx512", lambda blas: knows)
    (words,) = (line[14:] for line in information() if line.startswith("products "))
    assert words.startswith("in blocks of ours" if built and not knows else "by the BLAS")


def test_cpu_and_threads(facts):
    assert facts["CPU"] and facts["CPU features"]
    assert facts["bfloat16"].split()[:2] in (["by", "AMX,"], ["by", "AVX512-BF16,"], ["by", "MKL"], ["widened", "to"])
    assert f"{len(os.sched_getaffinity(0))} cores" in facts["threads"]
    assert f"kernels use {used_threads()} (run.threads)" in facts["threads"]
    assert "OPENBLAS_NUM_THREADS=3" in facts["threads"] and "MKL_NUM_THREADS=unset" in facts["threads"]
