# cython: cdivision=True, boundscheck=False, wraparound=False
# Products of bfloat16 matrices with float32 sums, on row-major data.

from distbelief.kernels.bfloat16 cimport widen_bits
from distbelief.kernels.blas cimport gemm, gemm16

# Stored rows of A that are widened at a time, where there are no products of bfloat16.
cdef enum:
    PANEL = 256


cdef inline Py_ssize_t product16_scratch(Py_ssize_t a_columns, Py_ssize_t b_size) noexcept nogil:
    """Elements that `product16` needs, for an A stored in rows of up to `a_columns` and a B of up to `b_size`."""
    return 0 if gemm16 != NULL else PANEL * a_columns + b_size


cdef inline void _widen(const unsigned short *bits, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t ld,
                        float *out) noexcept nogil:
    cdef Py_ssize_t r, c
    for r in range(rows):
        for c in range(columns):
            out[r * columns + c] = widen_bits(bits[r * ld + c])


cdef inline void product16(bint transpose_a, bint transpose_b, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t inner,
                           const unsigned short *a, Py_ssize_t lda, const unsigned short *b, Py_ssize_t ldb,
                           float *c, float *scratch) noexcept nogil:
    """C[rows, columns] = op(A) op(B); ld: length of a stored row. B is whole: ldb is its number of columns."""
    cdef Py_ssize_t panel, r, size, stored = inner if transpose_a else rows, width = rows if transpose_a else inner
    cdef float *b32 = scratch + PANEL * width
    if rows == 0:
        return
    if gemm16 != NULL:
        # Row-major; CblasNoTrans is 111, CblasTrans 112.
        gemm16(101, 111 + transpose_a, 111 + transpose_b, <int>rows, <int>columns, <int>inner, 1, a, <int>lda,
               b, <int>ldb, 0, c, <int>columns)
        return
    _widen(b, columns if transpose_b else inner, ldb, ldb, b32)
    for panel in range((stored + PANEL - 1) // PANEL):
        r = panel * PANEL
        size = min(PANEL, stored - r)
        _widen(a + r * lda, size, width, lda, scratch)
        if transpose_a:  # a panel is a part of every sum
            gemm[float](b't', b'n', <int>rows, <int>columns, <int>size, scratch, <int>rows, b32 + r * ldb, <int>ldb,
                        1 if r else 0, c, <int>columns)
        else:
            gemm[float](b'n', b't' if transpose_b else b'n', <int>size, <int>columns, <int>inner, scratch, <int>inner,
                        b32, <int>ldb, 0, c + r * columns, <int>columns)
