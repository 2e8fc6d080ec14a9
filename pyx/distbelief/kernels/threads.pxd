# How many threads a kernel may use; 1 in a build without OpenMP.

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define distbelief_threads() omp_get_max_threads()
    #else
    #define distbelief_threads() 1
    #endif
    """
    int threads "distbelief_threads"() noexcept nogil
