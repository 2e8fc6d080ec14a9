# cython: language_level=3
"""How many cores the kernels of this process use: threads of OpenMP, each with BLAS calls of its own."""

import os

cdef extern from *:
    """
    #ifdef _OPENMP
    #define distbelief_use_threads(n) omp_set_num_threads(n)
    #else
    #define distbelief_use_threads(n) ((void)(n))
    #endif
    """
    void set_threads "distbelief_use_threads"(int) noexcept nogil


def use_threads(int number):
    """Share the work of kernels called from this thread among `number` threads, 1 at least."""
    assert number >= 1
    set_threads(number)


def used_threads() -> int:
    """What the kernels use: 1 in a build without OpenMP."""
    return threads()


# The cores of a node belong to all its ranks: no more than one until somebody asks for more.
if "OMP_NUM_THREADS" not in os.environ:
    set_threads(1)
