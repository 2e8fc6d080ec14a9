# Matrix products on row-major data: by the BLAS that the site's SciPy uses, or in float32 by another one (blas.pyx).
# Products of bfloat16 with float32 sums: ours (product16.h), or MKL's cblas_gemm_bf16bf16f32, where the CPU is made
# for it.
# A row-major [r, c] array is a column-major [c, r] one to BLAS, so operands swap places.

from scipy.linalg.cython_blas cimport dgemm

from distbelief.kernels.real cimport real

ctypedef void (*sgemm_pointer)(char *transa, char *transb, int *m, int *n, int *k, float *alpha, float *a, int *lda,
                               float *b, int *ldb, float *beta, float *c, int *ldc) noexcept nogil

ctypedef void (*gemm16_pointer)(int layout, int transa, int transb, int m, int n, int k, float alpha,
                                const unsigned short *a, int lda, const unsigned short *b, int ldb, float beta,
                                float *c, int ldc) noexcept nogil

cdef sgemm_pointer sgemm
cdef bint scipys         # whether that is SciPy's
cdef bint widest         # whether it uses the CPU's widest registers, as far as is known
cdef gemm16_pointer gemm16  # NULL: there is none
cdef int way16                # by which our own come before it (multiply16.h); 0: they do not


cdef inline void gemm(char transpose_a, char transpose_b, int rows, int columns, int inner,
                      real *a, int lda, real *b, int ldb, real beta, real *c, int ldc) noexcept nogil:
    """C[rows, columns] = op(A)[rows, inner] op(B)[inner, columns] + beta C; ld: length of a stored row."""
    cdef real one = 1
    if real is float:
        sgemm(&transpose_b, &transpose_a, &columns, &rows, &inner, &one, b, &ldb, a, &lda, &beta, c, &ldc)
    else:
        dgemm(&transpose_b, &transpose_a, &columns, &rows, &inner, &one, b, &ldb, a, &lda, &beta, c, &ldc)
