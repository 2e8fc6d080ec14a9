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

# The vector type of GCC and Clang: no compiler vectorises a sum whose order it must keep. To Cython it is a double.
cdef extern from *:
    """
    typedef double four __attribute__((vector_size(32)));
    #define FOUR(p) ((four){(p)[0], (p)[1], (p)[2], (p)[3]})
    #define SUM(v) (((v)[0] + (v)[1]) + ((v)[2] + (v)[3]))
    static const four ZERO = {0};
    """
    ctypedef double four
    four FOUR_floats "FOUR" (const float *) noexcept nogil
    four FOUR_doubles "FOUR" (const double *) noexcept nogil
    double SUM(four) noexcept nogil
    four ZERO

cdef enum:
    BLOCK = 8192  # elements that a sweep reads of one vector before it turns to the next: long enough to prefetch well
    ROWS = 2  # of a tile, the products that the registers hold; L-BFGS has two new rows, y and the gradient
    COLUMNS = 4
    CHUNK = 1 << 18  # elements that one thread takes at a time


cdef inline four _widen(const real *p) noexcept nogil:
    if real is float:
        return FOUR_floats(p)
    else:
        return FOUR_doubles(p)


cdef void _tile(const double *rows, const real *w, const real *x, const real *y, const real *z, Py_ssize_t size,
                double *out) noexcept nogil:
    """out[r, c] = rows[r] . columns[c], 2 by 4. rows: BLOCK apart; columns: w, x, y, z; size: a multiple of 4."""
    cdef four aw = ZERO, ax = ZERO, ay = ZERO, az = ZERO, bw = ZERO, bx = ZERO, by = ZERO, bz = ZERO, a, b, v
    cdef Py_ssize_t i = 0
    while i < size:
        a, b = FOUR_doubles(rows + i), FOUR_doubles(rows + BLOCK + i)
        v = _widen[real](w + i)
        aw, bw = aw + a * v, bw + b * v
        v = _widen[real](x + i)
        ax, bx = ax + a * v, bx + b * v
        v = _widen[real](y + i)
        ay, by = ay + a * v, by + b * v
        v = _widen[real](z + i)
        az, bz = az + a * v, bz + b * v
        i = i + 4
    out[0], out[1], out[2], out[3] = SUM(aw), SUM(ax), SUM(ay), SUM(az)
    out[4], out[5], out[6], out[7] = SUM(bw), SUM(bx), SUM(by), SUM(bz)


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
        whole = size - size % 4
        for r in range(0, n_rows, 2):
            for i in range(ROWS):
                x[0] = rows[min(r + i, n_rows - 1)] + start
                for k in range(size):
                    widened[i * BLOCK + k] = <double>x[0][k]
            for c in range(0, n_columns, 4):
                for j in range(COLUMNS):
                    x[j] = columns[min(c + j, n_columns - 1)] + start
                _tile[real](widened, x[0], x[1], x[2], x[3], whole, products)
                for i in range(min(2, n_rows - r)):
                    for j in range(min(4, n_columns - c)):
                        for k in range(whole, size):
                            products[i * COLUMNS + j] += widened[i * BLOCK + k] * <double>x[j][k]
                        out[(r + i) * n_columns + c + j] += products[i * COLUMNS + j]


cdef void _combine_chunk(const real **vectors, const double *coefficients, Py_ssize_t count,
                         Py_ssize_t first, Py_ssize_t last, real *target) noexcept nogil:
    """target = sum of coefficients[i] vectors[i] over first..last."""
    cdef double total[BLOCK]
    cdef double a, b, c, d
    cdef const real *v
    cdef const real *w
    cdef const real *x
    cdef const real *y
    cdef Py_ssize_t step = BLOCK if count > 4 else BLOCK // 8  # few vectors: the sums stay in the first-level cache
    cdef Py_ssize_t block, start, size, i, k
    for block in range((last - first + step - 1) // step):
        start = first + block * step
        size = min(step, last - start)
        for i in range(size):
            total[i] = 0
        k = 0
        while k + 4 <= count:
            a, b, c, d = coefficients[k], coefficients[k + 1], coefficients[k + 2], coefficients[k + 3]
            v, w, x, y = vectors[k] + start, vectors[k + 1] + start, vectors[k + 2] + start, vectors[k + 3] + start
            for i in range(size):
                total[i] += (a * v[i] + b * w[i]) + (c * x[i] + d * y[i])
            k = k + 4
        while k < count:
            a = coefficients[k]
            v = vectors[k] + start
            for i in range(size):
                total[i] += a * v[i]
            k = k + 1
        for i in range(size):
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
