# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Assembly of minibatches: rows of a file, example-first, become columns of a batch, feature-first."""

from distbelief.kernels.real cimport real

ctypedef fused stored:
    unsigned char
    float
    double

# Features per tile: a tile of source rows and the touched part of the output stay in the first-level cache.
cdef Py_ssize_t TILE = 64


def gather_columns(const stored[:, :] source_nf, const long long[::1] rows_n, double scale, double shift,
                   real[:, ::1] out_fn):
    """out[f, j] = source[rows[j], f] * scale + shift.

    source [examples, features] uint8, float32 or float64, each row contiguous: some columns of an array will do;
    out [features, n] float32 or float64. Raises IndexError for a row that the source does not have.
    """
    cdef Py_ssize_t features = source_nf.shape[1], n = rows_n.shape[0], tile, first, last, f, j
    cdef real a = <real>scale, b = <real>shift
    cdef const stored *row
    assert out_fn.shape[0] == features and out_fn.shape[1] == n
    assert source_nf.strides[1] == sizeof(stored) or features <= 1
    for j in range(n):
        if not 0 <= rows_n[j] < source_nf.shape[0]:
            raise IndexError(f"row {rows_n[j]} of {source_nf.shape[0]}")
    with nogil:
        for tile in range((features + TILE - 1) // TILE):
            first = tile * TILE
            last = min(first + TILE, features)
            for j in range(n):
                row = &source_nf[rows_n[j], 0]
                for f in range(first, last):
                    out_fn[f, j] = <real>row[f] * a + b
