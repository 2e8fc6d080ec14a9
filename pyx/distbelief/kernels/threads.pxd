# cython: cdivision=True
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


cdef inline int bands_of(double operations) noexcept nogil:
    """In how many bands to share so much work: threads are not called for what one does in about 10 us."""
    return threads() if operations > 1e6 else 1


cdef inline int shares_of(double operations) noexcept nogil:
    """The same for long work, to be taken one by one: a thread that is held up by another process takes fewer."""
    cdef int bands = bands_of(operations)
    return 4 * bands if bands > 1 else 1


cdef inline Py_ssize_t band_start(Py_ssize_t size, int bands, int band) noexcept nogil:
    """Where the band-th of `bands` equal parts of 0..size-1 begins: a multiple of 16, or size after the last.

    Whole lines of the cache for each thread, and the tiles of a product where one thread would have them.
    """
    return min((size * band // bands + 15) // 16 * 16, size)
