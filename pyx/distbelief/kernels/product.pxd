# Sums of products over small blocks (product.h), for both float types.

from distbelief.kernels.real cimport real

cdef extern from *:
    """
    #define REAL float
    #define NAME(name) distbelief_float_##name
    #include "distbelief/kernels/product.h"
    #undef REAL
    #undef NAME
    #define REAL double
    #define NAME(name) distbelief_double_##name
    #include "distbelief/kernels/product.h"
    #undef REAL
    #undef NAME
    """
    # c[i, j] (+)= sum over o < outer, k < inner of a[i, o, k] b[o, k, j]. What follows an operand's name is the index
    # that the step, in elements, belongs to; a, b and c need not be aligned. a_ahead, b_ahead, c_ahead: where, seen
    # from each, lies what the next call will use; 0 if that is in the cache already. stream: c goes past the caches
    # (product.h).
    ctypedef struct Product:
        Py_ssize_t rows, columns, outer, inner
        Py_ssize_t a_i, a_o, a_k, b_o, b_k, c_i
        Py_ssize_t a_ahead, b_ahead, c_ahead
        bint add, stream

    void _product_float "distbelief_float_product"(const Product *p, const float *a, const float *b, float *c) nogil
    void _product_double "distbelief_double_product"(const Product *p, const double *a, const double *b,
                                                     double *c) nogil


cdef inline void product(const Product *p, const real *a, const real *b, real *c) noexcept nogil:
    if real is float:
        _product_float(p, a, b, c)
    else:
        _product_double(p, a, b, c)
