# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Which BLAS computes the float32 products of this process, and such a product on its own."""

from cython.parallel cimport prange
from libc.stdint cimport uintptr_t
from scipy.linalg cimport cython_blas

from distbelief.kernels.threads cimport band_start, bands_of

sgemm = <sgemm_pointer>cython_blas.sgemm
gemm16 = NULL


def use_sgemm(size_t address=0):
    """Compute float32 products with the sgemm at `address`, in the Fortran convention and with 32-bit integers.

    0: SciPy's, as in the beginning. The function is called from several threads at once and should use one itself.
    """
    global sgemm
    sgemm = <sgemm_pointer><uintptr_t>address if address else <sgemm_pointer>cython_blas.sgemm


def use_gemm16(size_t address=0):
    """Compute bfloat16 products with the cblas_gemm_bf16bf16f32 at `address`, 32-bit integers. 0: widen them for sgemm."""
    global gemm16
    gemm16 = <gemm16_pointer><uintptr_t>address


def product(bint transpose_a, bint transpose_b, const real[:, ::1] a, const real[:, ::1] b, real[:, ::1] out):
    """out = op(a) op(b), op: the transpose or nothing. Threads share the rows of `out`."""
    cdef Py_ssize_t rows = out.shape[0], columns = out.shape[1], inner = a.shape[not transpose_a], first
    cdef Py_ssize_t step = 1 if transpose_a else inner
    cdef int bands = bands_of(2.0 * rows * columns * inner), band
    assert a.shape[transpose_a] == rows and b.shape[transpose_b] == inner and b.shape[not transpose_b] == columns
    assert rows and columns and inner
    with nogil:
        for band in prange(bands, schedule="static", use_threads_if=bands > 1):
            first = band_start(rows, bands, band)
            if first < rows:
                gemm[real](b't' if transpose_a else b'n', b't' if transpose_b else b'n',
                           <int>(band_start(rows, bands, band + 1) - first), <int>columns, <int>inner,
                           <real *>&a[0, 0] + first * step, <int>a.shape[1], <real *>&b[0, 0], <int>b.shape[1],
                           0, &out[first, 0], <int>columns)
