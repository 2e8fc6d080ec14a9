# cython: cdivision=True, boundscheck=False, wraparound=False
# Products of bfloat16 matrices with float32 sums, on row-major data.

from distbelief.kernels.bfloat16 cimport widen_rows
from distbelief.kernels.blas cimport gemm, gemm16

# Stored rows of A that are widened at a time, where there are no products of bfloat16.
cdef enum:
    PANEL = 256


cdef inline Py_ssize_t panel_of(Py_ssize_t rows) noexcept nogil:
    """How many of A's stored rows to give to `product16` at a time."""
    return rows if gemm16 != NULL else min(rows, <Py_ssize_t>PANEL)


cdef inline Py_ssize_t widened(Py_ssize_t size) noexcept nogil:
    """Elements of scratch for `size` numbers in float32, where they are needed."""
    return 0 if gemm16 != NULL else size


cdef inline void widen_operand(const unsigned short *b, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t ldb,
                               float *b32) noexcept nogil:
    """A B of `rows` stored rows for `product16`, if it needs one in float32: b32 [rows, columns]."""
    if gemm16 == NULL:
        widen_rows(b, rows, columns, ldb, b32)


cdef inline void product16(bint transpose_a, bint transpose_b, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t inner,
                           const unsigned short *a, Py_ssize_t lda, float *a32, const unsigned short *b,
                           Py_ssize_t ldb, const float *b32, float beta, float *c) noexcept nogil:
    """C[rows, columns] = op(A) op(B) + beta C; ld: length of a stored row.

    `a32` has room for A in float32; `b32` is B as `widen_operand` leaves it.
    """
    cdef Py_ssize_t width = rows if transpose_a else inner
    if rows == 0:
        return
    if gemm16 != NULL:
        # Row-major; CblasNoTrans is 111, CblasTrans 112.
        gemm16(101, 111 + transpose_a, 111 + transpose_b, <int>rows, <int>columns, <int>inner, 1, a, <int>lda,
               b, <int>ldb, beta, c, <int>columns)
        return
    widen_rows(a, inner if transpose_a else rows, width, lda, a32)
    gemm[float](b't' if transpose_a else b'n', b't' if transpose_b else b'n', <int>rows, <int>columns, <int>inner,
                a32, <int>width, <float *>b32, <int>(inner if transpose_b else columns), beta, c, <int>columns)
