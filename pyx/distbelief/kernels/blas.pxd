# Matrix products on row-major data, through whatever BLAS the site's SciPy uses.
# A row-major [r, c] array is a column-major [c, r] one to BLAS, so operands swap places.

from scipy.linalg.cython_blas cimport dgemm, sgemm

from distbelief.kernels.real cimport real


cdef inline void gemm(char transpose_a, char transpose_b, int rows, int columns, int inner,
                      real *a, int lda, real *b, int ldb, real beta, real *c, int ldc) noexcept nogil:
    """C[rows, columns] = op(A)[rows, inner] op(B)[inner, columns] + beta C; ld: length of a stored row."""
    cdef real one = 1
    if real is float:
        sgemm(&transpose_b, &transpose_a, &columns, &rows, &inner, &one, b, &ldb, a, &lda, &beta, c, &ldc)
    else:
        dgemm(&transpose_b, &transpose_a, &columns, &rows, &inner, &one, b, &ldb, a, &lda, &beta, c, &ldc)
