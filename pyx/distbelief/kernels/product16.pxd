# cython: cdivision=True, boundscheck=False, wraparound=False
# Products of bfloat16 matrices with float32 sums, on row-major data. A is large (a layer's weights, or what makes their
# gradient), B small. Our own kernels want B packed, once, for whoever computes a part of the product (`pack`).

from libc.stdint cimport uintptr_t

from distbelief.kernels.bfloat16 cimport widen_rows
from distbelief.kernels.blas cimport gemm, gemm16, way16

cdef extern from "distbelief/kernels/product16.h":
    cdef enum:
        PRODUCT_FORWARD
        PRODUCT_TO_WEIGHTS
        PRODUCT_TO_INPUTS
        PRODUCT_BATCH
        PRODUCT_LONGEST

    # What becomes of sums: rows x columns of them, rows ld apart, from (row, column) of the product on. Nobody reads
    # them again.
    ctypedef void (*Put "SquarePut")(void *to, float *sums, Py_ssize_t ld, Py_ssize_t row, Py_ssize_t column,
                                     Py_ssize_t rows, Py_ssize_t columns) noexcept nogil

    Py_ssize_t square_up(Py_ssize_t size) nogil  # squares.h
    void squares_pack(int product, const unsigned short *b, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t ldb,
                      Py_ssize_t first, Py_ssize_t last, unsigned short *to) nogil
    void squares_product(int way, int product, const unsigned short *w, Py_ssize_t ldw, const unsigned short *b,
                         Py_ssize_t rows, Py_ssize_t n, Py_ssize_t inner, Put put, void *to) nogil
    void squares_to_weights(int way, const unsigned short *a, Py_ssize_t lda, const unsigned short *b,
                            const SquarePlace *to, Py_ssize_t rows, Py_ssize_t n) nogil

    cdef enum:  # squares.h, as all below
        SQUARE_STORE
        SQUARE_ADD

    # Where a gradient g goes: c = (SQUARE_STORE) or += (SQUARE_ADD) weight g; w -= rate g, in float32 or bfloat16,
    # unless both are NULL. Rows are ld apart, and have so many columns.
    ctypedef struct SquarePlace:
        float *c
        float *w
        unsigned short *w16
        Py_ssize_t ld, columns
        float weight, rate
        int how

# Rows and columns of a block, where the product is not ours.
cdef enum:
    PANEL = 256

# Products: W x, dz x', W' dz.
cdef enum:
    FORWARD = PRODUCT_FORWARD
    TO_WEIGHTS = PRODUCT_TO_WEIGHTS
    TO_INPUTS = PRODUCT_TO_INPUTS


cdef inline Py_ssize_t columns_at_once(int product, Py_ssize_t n) noexcept nogil:
    """Of a B [rows, n], how many columns to pack and multiply at a time, so that no more than these are ever packed.

    The product dz x' is summed over them: it takes all.
    """
    return min(n, <Py_ssize_t>PRODUCT_BATCH) if way16 and product != TO_WEIGHTS else n


cdef inline Py_ssize_t packed_size(Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    """Elements of float32 that a packed B [rows, n] takes: whole lines of the cache."""
    return square_up(rows) * square_up(n) // 2 if way16 else 0


cdef inline Py_ssize_t product_scratch(Py_ssize_t n) noexcept nogil:
    """Elements of float32 that products with a B [rows, n] need of whoever computes them."""
    if way16:
        return 0
    return PANEL * n if gemm16 != NULL else PANEL * (PANEL + 2 * n)


cdef inline float *line(float *place) noexcept nogil:
    """`place`, or where the next line of the cache begins."""
    return <float *>((<uintptr_t>place + 63) // 64 * 64)


cdef inline void pack(int product, const unsigned short *b, Py_ssize_t rows, Py_ssize_t n, Py_ssize_t ldb,
                      Py_ssize_t first, Py_ssize_t last, float *packed) noexcept nogil:
    """Rows first..last-1 of B [rows, n], its rows ldb apart, for one of the products.

    `first` is a multiple of 32, and `last` too or the number of rows; `packed` begins a line of the cache.
    """
    if way16:
        squares_pack(product, b, rows, n, ldb, first, last, <unsigned short *>packed)


cdef inline void product16(int product, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t inner, const unsigned short *a,
                           Py_ssize_t lda, const unsigned short *b, Py_ssize_t ldb, const float *packed,
                           float *scratch, Put put, void *to) noexcept nogil:
    """FORWARD: A B; TO_INPUTS: A' B. [rows, columns], handed to `put` piece by piece; lda, ldb: length of a stored row.

    `packed` is B as `pack` leaves it; `scratch` has product_scratch(columns) elements.
    """
    cdef bint transposed = product == TO_INPUTS
    cdef float *sums = scratch
    cdef float *b32 = scratch + PANEL * columns
    cdef float *a32 = b32 + PANEL * columns
    cdef Py_ssize_t row = 0, k, size, depth
    if way16:
        squares_product(way16, product, a, lda, <const unsigned short *>packed, rows, columns, inner, put, to)
        return
    while row < rows:
        size = min(rows - row, <Py_ssize_t>PANEL)
        if gemm16 != NULL:  # Row-major; CblasNoTrans is 111, CblasTrans 112.
            gemm16(101, 111 + transposed, 111, <int>size, <int>columns, <int>inner, 1,
                   a + (row if transposed else row * lda), <int>lda, b, <int>ldb, 0, sums, <int>columns)
        else:
            k = 0
            while k < inner:
                depth = min(inner - k, <Py_ssize_t>PANEL)
                widen_rows(b + k * ldb, depth, columns, ldb, b32)
                if transposed:
                    widen_rows(a + k * lda + row, depth, size, lda, a32)
                else:
                    widen_rows(a + row * lda + k, size, depth, lda, a32)
                gemm[float](b't' if transposed else b'n', b'n', <int>size, <int>columns, <int>depth, a32,
                            <int>(size if transposed else depth), b32, <int>columns, 1 if k else 0, sums, <int>columns)
                k += depth
        put(to, sums, columns, row, 0, size, columns)
        row += size


cdef inline void outer_product16(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t n, const unsigned short *a,
                                 Py_ssize_t lda, const unsigned short *b, const float *packed, float *scratch,
                                 const SquarePlace *to) noexcept nogil:
    """TO_WEIGHTS: g [rows, columns] = A B', of A [rows, n], its rows lda apart, and B [columns, n]; else as above.

    Where products are not ours, it can only be stored, with a weight of 1.
    """
    cdef float *c = to.c
    cdef float *a32 = scratch
    cdef float *b32 = scratch + PANEL * n
    cdef Py_ssize_t row = 0, column, size, wide
    if rows == 0:
        return
    if way16:
        squares_to_weights(way16, a, lda, <const unsigned short *>packed, to, rows, n)
        return
    if gemm16 != NULL:
        gemm16(101, 111, 112, <int>rows, <int>columns, <int>n, 1, a, <int>lda, b, <int>n, 0, c, <int>columns)
        return
    while row < rows:
        size = min(rows - row, <Py_ssize_t>PANEL)
        widen_rows(a + row * lda, size, n, lda, a32)
        column = 0
        while column < columns:
            wide = min(columns - column, <Py_ssize_t>PANEL)
            widen_rows(b + column * n, wide, n, n, b32)
            gemm[float](b'n', b't', <int>size, <int>wide, <int>n, a32, <int>n, b32, <int>n, 0,
                        c + row * columns + column, <int>columns)
            column += wide
        row += size
