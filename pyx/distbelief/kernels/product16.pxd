# cython: cdivision=True, boundscheck=False, wraparound=False
# Products of bfloat16 matrices with float32 sums, on row-major data. A is large (a layer's weights, or what makes their
# gradient), B small: it is prepared once, for whoever computes the product.

from libc.stdint cimport uintptr_t

from distbelief.kernels.bfloat16 cimport widen_rows
from distbelief.kernels.blas cimport amx, gemm, gemm16

cdef extern from "distbelief/kernels/amx.h":
    cdef enum:
        AMX_FORWARD
        AMX_TO_WEIGHTS
        AMX_TO_INPUTS

    Py_ssize_t amx_up(Py_ssize_t size) nogil  # amx_tiles.h
    void amx_pack(int product, const unsigned short *b, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t ldb,
                  unsigned short *to) nogil
    void amx_forward(const unsigned short *w, Py_ssize_t ldw, const unsigned short *b, float *c, Py_ssize_t rows,
                     Py_ssize_t n, Py_ssize_t inner) nogil
    void amx_to_weights(const unsigned short *a, Py_ssize_t lda, const unsigned short *b, float *c, Py_ssize_t rows,
                        Py_ssize_t columns, Py_ssize_t n) nogil
    void amx_to_inputs(const unsigned short *w, Py_ssize_t ldw, const unsigned short *b, float *c, Py_ssize_t rows,
                       Py_ssize_t n, Py_ssize_t inner) nogil

# Stored rows of A that are widened at a time, where there are no products of bfloat16.
cdef enum:
    PANEL = 256

# Products: W x, dz x', W' dz.
cdef enum:
    FORWARD = AMX_FORWARD
    TO_WEIGHTS = AMX_TO_WEIGHTS
    TO_INPUTS = AMX_TO_INPUTS


cdef inline bint widens() noexcept nogil:
    """Whether numbers are widened and multiplied in float32."""
    return not amx and gemm16 == NULL


cdef inline Py_ssize_t panel_of(Py_ssize_t rows) noexcept nogil:
    """How many of A's stored rows to give to `product16` at a time."""
    return min(rows, <Py_ssize_t>PANEL) if widens() else rows


cdef inline Py_ssize_t operand(Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    """Elements of float32 that a prepared B [rows, n] takes: whole lines of the cache."""
    if amx:
        return amx_up(rows) * amx_up(n) // 2
    return (rows * n + 15) // 16 * 16 if widens() else 0


cdef inline float *line(float *place) noexcept nogil:
    """`place`, or where the next line of the cache begins."""
    return <float *>((<uintptr_t>place + 63) // 64 * 64)


cdef inline void prepare_operand(int product, const unsigned short *b, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t ldb,
                                 float *prepared) noexcept nogil:
    """B [rows, n], its rows ldb apart, for one of the products; `prepared` begins a line of the cache."""
    if amx:
        amx_pack(product, b, rows, n, ldb, <unsigned short *>prepared)
    elif widens():
        widen_rows(b, rows, n, ldb, prepared)


cdef inline void product16(int product, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t inner, const unsigned short *a,
                           Py_ssize_t lda, float *a32, const unsigned short *b, Py_ssize_t ldb, const float *prepared,
                           bint add, float *c) noexcept nogil:
    """C[rows, columns] = one of the products of A and B, or is added to if it was begun with other panels of A.

    ld: length of a stored row. `a32` has room for A in float32, if numbers are widened; `prepared` is B as
    `prepare_operand` leaves it.
    """
    cdef bint transpose_a = product == TO_INPUTS, transpose_b = product == TO_WEIGHTS
    cdef Py_ssize_t width = rows if transpose_a else inner
    if rows == 0:
        return
    if amx:  # takes A whole
        if product == FORWARD:
            amx_forward(a, lda, <const unsigned short *>prepared, c, rows, columns, inner)
        elif product == TO_WEIGHTS:
            amx_to_weights(a, lda, <const unsigned short *>prepared, c, rows, columns, inner)
        else:
            amx_to_inputs(a, lda, <const unsigned short *>prepared, c, rows, columns, inner)
        return
    if gemm16 != NULL:
        # Row-major; CblasNoTrans is 111, CblasTrans 112.
        gemm16(101, 111 + transpose_a, 111 + transpose_b, <int>rows, <int>columns, <int>inner, 1, a, <int>lda,
               b, <int>ldb, 1 if add else 0, c, <int>columns)
        return
    widen_rows(a, inner if transpose_a else rows, width, lda, a32)
    gemm[float](b't' if transpose_a else b'n', b't' if transpose_b else b'n', <int>rows, <int>columns, <int>inner,
                a32, <int>width, <float *>prepared, <int>(inner if transpose_b else columns), 1 if add else 0, c,
                <int>columns)
