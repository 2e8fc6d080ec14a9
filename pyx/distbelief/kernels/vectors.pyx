# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Dot products and linear combinations of many vectors at once, each read from memory once.

What batch methods do to vectors is bound by memory: 2 operations for 4 or 8 bytes. So a block of dot products is
one sweep, and so is a sum of twenty vectors. Arithmetic is in double, for float32 vectors too. Long vectors
are cut into chunks for the threads of OpenMP; chunks are fixed and added in order, so that a result does not depend
on the number of threads.
"""

from cython.parallel cimport prange
from libc.stdlib cimport free, malloc

from distbelief.kernels.real cimport real

# The vector types of GCC and Clang, a register wide: no compiler vectorises a sum whose order it must keep, and with
# AVX-512 none takes the whole width of its own accord. To Cython a vector is a double.
cdef extern from *:
    """
    #ifdef __AVX512F__
    #include <immintrin.h>
    enum { LANES = 8 };
    #define WIDEN(v) ((lanes)_mm512_cvtps_pd((__m256)(v))) /* GCC converts by halves */
    #define NARROW(v) ((floats)_mm512_cvtpd_ps((__m512d)(v)))
    #else
    enum { LANES = 4 };
    #define WIDEN(v) __builtin_convertvector(v, lanes)
    #define NARROW(v) __builtin_convertvector(v, floats)
    #endif
    typedef double lanes __attribute__((vector_size(8 * LANES)));
    typedef float floats __attribute__((vector_size(4 * LANES)));
    typedef double lanes_anywhere __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
    typedef float floats_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
    #define LOAD_floats(p) WIDEN(*(const floats_anywhere *)(p))
    #define LOAD_doubles(p) (*(const lanes_anywhere *)(p))
    #define STORE_floats(p, v) (*(floats_anywhere *)(p) = NARROW(v))
    #define STORE_doubles(p, v) (*(lanes_anywhere *)(p) = (v))
    static inline double SUM(lanes v) {
        double sum = 0;
        for (int i = 0; i < LANES; i++) sum += v[i];
        return sum;
    }
    static const lanes ZERO = {0};
    """
    ctypedef double lanes
    enum:
        LANES
    lanes LOAD_floats(const float *) noexcept nogil
    lanes LOAD_doubles(const double *) noexcept nogil
    void STORE_floats(float *, lanes) noexcept nogil
    void STORE_doubles(double *, lanes) noexcept nogil
    double SUM(lanes) noexcept nogil
    lanes ZERO

cdef enum:
    BLOCK = 8192  # elements that a sweep reads of one vector before it turns to the next: long enough to prefetch well
    ROWS = 2  # of a tile, the products that the registers hold; L-BFGS has two new rows, y and the gradient
    COLUMNS = 4
    CHUNK = 1 << 18  # elements that one thread takes at a time


cdef inline lanes _load(const real *p) noexcept nogil:
    if real is float:
        return LOAD_floats(p)
    else:
        return LOAD_doubles(p)


cdef inline void _store(real *p, lanes v) noexcept nogil:
    if real is float:
        STORE_floats(p, v)
    else:
        STORE_doubles(p, v)


cdef void _tile(const double *rows, const real *w, const real *x, const real *y, const real *z, Py_ssize_t size,
                double *out) noexcept nogil:
    """out[r, c] = rows[r] . columns[c], 2 by 4. rows: BLOCK apart; columns: w, x, y, z; size: a multiple of LANES."""
    cdef lanes aw = ZERO, ax = ZERO, ay = ZERO, az = ZERO, bw = ZERO, bx = ZERO, by = ZERO, bz = ZERO, a, b, v
    cdef Py_ssize_t i = 0
    while i < size:
        a, b = LOAD_doubles(rows + i), LOAD_doubles(rows + BLOCK + i)
        v = _load[real](w + i)
        aw, bw = aw + a * v, bw + b * v
        v = _load[real](x + i)
        ax, bx = ax + a * v, bx + b * v
        v = _load[real](y + i)
        ay, by = ay + a * v, by + b * v
        v = _load[real](z + i)
        az, bz = az + a * v, bz + b * v
        i = i + LANES
    out[0], out[1], out[2], out[3] = SUM(aw), SUM(ax), SUM(ay), SUM(az)
    out[4], out[5], out[6], out[7] = SUM(bw), SUM(bx), SUM(by), SUM(bz)


cdef void _widen(const real *values, Py_ssize_t size, double *out) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i + LANES <= size:
        STORE_doubles(out + i, _load[real](values + i))
        i = i + LANES
    while i < size:
        out[i] = <double>values[i]
        i = i + 1


cdef void _gram_chunk(const real **rows, Py_ssize_t n_rows, const real **columns, Py_ssize_t n_columns,
                      Py_ssize_t first, Py_ssize_t last, double *out) noexcept nogil:
    """out[r, c] += rows[r] . columns[c] over first..last. A tile that sticks out repeats the last row or column."""
    cdef double widened[ROWS * BLOCK]
    cdef double products[ROWS * COLUMNS]
    cdef const real *x[COLUMNS]
    cdef Py_ssize_t block, start, size, whole, r, c, i, j, k
    for block in range((last - first + BLOCK - 1) // BLOCK):
        start = first + block * BLOCK
        size = min(<Py_ssize_t>BLOCK, last - start)
        whole = size - size % LANES
        for r in range(0, n_rows, 2):
            for i in range(ROWS):
                x[0] = rows[min(r + i, n_rows - 1)] + start
                _widen[real](x[0], size, widened + i * BLOCK)
            for c in range(0, n_columns, 4):
                for j in range(COLUMNS):
                    x[j] = columns[min(c + j, n_columns - 1)] + start
                _tile[real](widened, x[0], x[1], x[2], x[3], whole, products)
                for i in range(min(2, n_rows - r)):
                    for j in range(min(4, n_columns - c)):
                        for k in range(whole, size):
                            products[i * COLUMNS + j] += widened[i * BLOCK + k] * <double>x[j][k]
                        out[(r + i) * n_columns + c + j] += products[i * COLUMNS + j]


cdef void _add(const real *v, double a, Py_ssize_t size, double *total) noexcept nogil:
    """total += a v."""
    cdef Py_ssize_t i
    for i in range(size):
        total[i] += a * v[i]


cdef void _add_four(const real **vectors, const double *coefficients, Py_ssize_t start, Py_ssize_t size,
                    double *total) noexcept nogil:
    """total += the sum of coefficients[k] vectors[k][start:] for k < 4; size: a multiple of LANES."""
    cdef double a = coefficients[0], b = coefficients[1], c = coefficients[2], d = coefficients[3]
    cdef const real *v = vectors[0] + start
    cdef const real *w = vectors[1] + start
    cdef const real *x = vectors[2] + start
    cdef const real *y = vectors[3] + start
    cdef lanes sum
    cdef Py_ssize_t i = 0
    while i < size:
        sum = (a * _load[real](v + i) + b * _load[real](w + i)) + (c * _load[real](x + i) + d * _load[real](y + i))
        STORE_doubles(total + i, LOAD_doubles(total + i) + sum)
        i = i + LANES


cdef void _combine_chunk(const real **vectors, const double *coefficients, Py_ssize_t count,
                         Py_ssize_t first, Py_ssize_t last, real *target) noexcept nogil:
    """target = sum of coefficients[i] vectors[i] over first..last."""
    cdef double total[BLOCK]
    cdef Py_ssize_t step = BLOCK if count > 4 else BLOCK // 8  # few vectors: the sums stay in the first-level cache
    cdef Py_ssize_t block, start, size, whole, i, j, k
    for block in range((last - first + step - 1) // step):
        start = first + block * step
        size = min(step, last - start)
        whole = size - size % LANES
        for i in range(size):
            total[i] = 0
        k = 0
        while k + 4 <= count:
            _add_four[real](vectors + k, coefficients + k, start, whole, total)
            for j in range(k, k + 4):
                _add[real](vectors[j] + start + whole, coefficients[j], size - whole, total + whole)
            k = k + 4
        for j in range(k, count):
            _add[real](vectors[j] + start, coefficients[j], size, total)
        i = 0
        while i < whole:
            _store[real](target + start + i, LOAD_doubles(total + i))
            i = i + LANES
        for i in range(whole, size):
            target[start + i] = <real>total[i]


cdef int _point(object arrays, Py_ssize_t size, const real **pointers) except -1:
    """The addresses of 1-D arrays of `size`; they stay valid while the caller holds the arrays."""
    cdef const real[::1] view
    for i, array in enumerate(arrays):
        view = array
        assert view.shape[0] == size
        pointers[i] = &view[0]
    return 0


cdef int _gram(object rows, object columns, Py_ssize_t size, double[:, ::1] out, real like) except -1:
    cdef Py_ssize_t n_rows = len(rows), n_columns = len(columns), block = n_rows * n_columns
    cdef Py_ssize_t chunks = (size + CHUNK - 1) // CHUNK, chunk, i
    cdef const real **pointers = <const real **>malloc((n_rows + n_columns) * sizeof(void *))
    cdef double *partial = <double *>malloc(chunks * block * sizeof(double))
    try:
        if pointers == NULL or partial == NULL:
            raise MemoryError
        _point[real](rows, size, pointers)
        _point[real](columns, size, pointers + n_rows)
        for i in range(chunks * block):
            partial[i] = 0
        for chunk in prange(chunks, nogil=True, schedule="static", use_threads_if=chunks > 1):
            _gram_chunk[real](pointers, n_rows, pointers + n_rows, n_columns, chunk * CHUNK,
                              min(size, (chunk + 1) * CHUNK), partial + chunk * block)
        for chunk in range(chunks):
            for i in range(block):
                (&out[0, 0])[i] += partial[chunk * block + i]
    finally:
        free(partial)
        free(pointers)
    return 0


def gram(rows, columns, double[:, ::1] out):
    """out[i, j] = rows[i] . columns[j]: lists of vectors of one type and size, out of shape (rows, columns)."""
    assert out.shape[0] == len(rows) and out.shape[1] == len(columns)
    out[:, :] = 0
    if out.shape[0] == 0 or out.shape[1] == 0 or len(rows[0]) == 0:
        return
    if rows[0].itemsize == sizeof(float):
        _gram[float](rows, columns, len(rows[0]), out, 0)
    else:
        _gram[double](rows, columns, len(rows[0]), out, 0)


def combine(const double[::1] coefficients, vectors, real[::1] target):
    """target = sum of coefficients[i] vectors[i]; the target may be one of the vectors, not overlap with one."""
    cdef Py_ssize_t count = len(vectors), size = target.shape[0], chunks = (size + CHUNK - 1) // CHUNK, chunk
    cdef const real **pointers
    assert coefficients.shape[0] == count
    if count == 0:
        target[:] = 0
    if count == 0 or size == 0:
        return
    pointers = <const real **>malloc(count * sizeof(void *))
    try:
        if pointers == NULL:
            raise MemoryError
        _point[real](vectors, size, pointers)
        for chunk in prange(chunks, nogil=True, schedule="static", use_threads_if=chunks > 1):
            _combine_chunk[real](pointers, &coefficients[0], count, chunk * CHUNK,
                                 min(size, (chunk + 1) * CHUNK), &target[0])
    finally:
        free(pointers)
