# The products of dense layers on row-major data: ours (blocked.h) where it measured faster, else BLAS's.
#
# `whole`: the numbers of the large matrix, of which this may be a band's share, as a thread takes it.

from distbelief.kernels.blas cimport gemm, scipys, widest
from distbelief.kernels.product cimport Product
from distbelief.kernels.real cimport real


cdef extern from *:
    """
    #define REAL float
    #define NAME(name) distbelief_float_##name
    #include "distbelief/kernels/blocked.h"
    #include "distbelief/kernels/accrue.h"
    #undef REAL
    #undef NAME
    #define REAL double
    #define NAME(name) distbelief_double_##name
    #include "distbelief/kernels/blocked.h"
    #include "distbelief/kernels/accrue.h"
    #undef REAL
    #undef NAME
    """
    bint FAST_COLUMNS
    bint WIDEST
    bint FAST_OUTER(bint openblas) nogil
    bint FAST_ROWS(bint openblas) nogil
    Py_ssize_t NARROW
    Py_ssize_t LONGEST

    void _rows_float "distbelief_float_row_product"(const float *w, const float *b, float *c, Py_ssize_t rows,
                                                    Py_ssize_t columns, Py_ssize_t inner) nogil
    void _rows_double "distbelief_double_row_product"(const double *w, const double *b, double *c, Py_ssize_t rows,
                                                      Py_ssize_t columns, Py_ssize_t inner) nogil

    void _columns_float "distbelief_float_column_product"(const float *w, Py_ssize_t ldw, const float *b, float *c,
                                                          Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t inner) nogil
    void _columns_double "distbelief_double_column_product"(const double *w, Py_ssize_t ldw, const double *b, double *c,
                                                            Py_ssize_t rows, Py_ssize_t columns,
                                                            Py_ssize_t inner) nogil
    void _outer_float "distbelief_float_outer_product"(const float *a, const float *b, float *c, Py_ssize_t rows,
                                                       Py_ssize_t columns, Py_ssize_t inner) nogil
    void _outer_double "distbelief_double_outer_product"(const double *a, const double *b, double *c, Py_ssize_t rows,
                                                         Py_ssize_t columns, Py_ssize_t inner) nogil

    void _accrue_float "distbelief_float_outer_accrue"(const float *a, const float *b, float *sums, float *w,
                                                       double weight, double rate, bint fresh, Py_ssize_t rows,
                                                       Py_ssize_t columns, Py_ssize_t inner) nogil
    void _accrue_double "distbelief_double_outer_accrue"(const double *a, const double *b, double *sums, double *w,
                                                         double weight, double rate, bint fresh, Py_ssize_t rows,
                                                         Py_ssize_t columns, Py_ssize_t inner) nogil

cdef enum:
    LARGE = 1 << 20  # numbers of a matrix from which on it does not stay in the caches, with what else a step touches
    SMALL = 1 << 11  # and below which a product is over before its tiles are full
    FEW = 8  # examples: products with fewer wait for memory


cdef inline bint _ours(Py_ssize_t whole, Py_ssize_t n, Py_ssize_t most) noexcept nogil:
    """Whether a product of that many numbers with n examples is for our blocks: if the caches do not hold it, up to
    `most` examples; and nearly always where the BLAS has but half of our registers."""
    if WIDEST and not widest:
        return whole >= SMALL and n >= FEW
    return whole >= LARGE and n <= most


cdef inline void row_product(const real *w, const real *b, real *c, Py_ssize_t rows, Py_ssize_t columns,
                             Py_ssize_t inner, Py_ssize_t whole) noexcept nogil:
    """C[rows, columns] = W[rows, inner] B[inner, columns]: forward. With AVX-512 OpenBLAS's is slower; MKL's is on
    other processors than Intel's."""
    if FAST_ROWS(scipys) and _ours(whole, columns, NARROW):
        if real is float:
            _rows_float(w, b, c, rows, columns, inner)
        else:
            _rows_double(w, b, c, rows, columns, inner)
    else:
        gemm[real](b'n', b'n', <int>rows, <int>columns, <int>inner, <real *>w, <int>inner, <real *>b, <int>columns, 0,
                   c, <int>columns)


cdef inline bint outer_is_ours(Py_ssize_t whole, Py_ssize_t inner) noexcept nogil:
    """Whether the gradient by so many weights, from so many examples, is for our blocks."""
    return FAST_OUTER(scipys) and _ours(whole, inner, LONGEST)


cdef inline void outer_product(const real *a, const real *b, real *c, Py_ssize_t rows, Py_ssize_t columns,
                               Py_ssize_t inner, Py_ssize_t whole) noexcept nogil:
    """C[rows, columns] = A[rows, inner] B[columns, inner]': the gradient by weights.

    Ours writes past the caches, and is faster than MKL's; than OpenBLAS's with AVX-512.
    """
    if outer_is_ours(whole, inner):
        if real is float:
            _outer_float(a, b, c, rows, columns, inner)
        else:
            _outer_double(a, b, c, rows, columns, inner)
    else:
        gemm[real](b'n', b't', <int>rows, <int>columns, <int>inner, <real *>a, <int>inner, <real *>b, <int>inner, 0, c,
                   <int>columns)


cdef inline void outer_accrue(const real *a, const real *b, real *sums, real *w, double weight, double rate, bint fresh,
                              Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t inner) noexcept nogil:
    """For the same product g, which is written nowhere: sums += weight g, or if `fresh` sums = weight g; w -= rate g,
    unless w is NULL (accrue.h)."""
    if real is float:
        _accrue_float(a, b, sums, w, weight, rate, fresh, rows, columns, inner)
    else:
        _accrue_double(a, b, sums, w, weight, rate, fresh, rows, columns, inner)


cdef inline void column_product(const real *w, Py_ssize_t ldw, const real *b, real *c, Py_ssize_t rows,
                                Py_ssize_t columns, Py_ssize_t inner, Py_ssize_t whole) noexcept nogil:
    """C[rows, columns] = W[inner, rows]' B[inner, columns], W's rows ldw apart: the gradient by inputs.

    Ours is faster than OpenBLAS's, which reads W in pieces of lines, and no slower than MKL's. For wider results both
    are as fast.
    """
    if FAST_COLUMNS and _ours(whole, columns, NARROW):
        if real is float:
            _columns_float(w, ldw, b, c, rows, columns, inner)
        else:
            _columns_double(w, ldw, b, c, rows, columns, inner)
    else:
        gemm[real](b't', b'n', <int>rows, <int>columns, <int>inner, <real *>w, <int>ldw, <real *>b, <int>columns, 0, c,
                   <int>columns)
