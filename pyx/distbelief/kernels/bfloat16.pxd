# bfloat16 as bits: the upper half of a float32.

ctypedef union Bits:
    unsigned int whole
    float value


cdef inline float widen_bits(unsigned short bits) noexcept nogil:
    cdef Bits b
    b.whole = (<unsigned int>bits) << 16
    return b.value


cdef inline void widen_rows(const unsigned short *bits, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t ld,
                            float *out) noexcept nogil:
    """out [rows, columns] = bits; ld: length of a stored row."""
    cdef Py_ssize_t r, c
    for r in range(rows):
        for c in range(columns):
            out[r * columns + c] = widen_bits(bits[r * ld + c])


cdef inline unsigned short narrow_bits(float value) noexcept nogil:
    """Round to nearest, ties to even; a NaN stays a (quiet) NaN."""
    cdef Bits b
    cdef unsigned int rounded, nan
    b.value = value
    rounded = (b.whole + 0x7FFF + ((b.whole >> 16) & 1)) >> 16
    nan = (b.whole >> 16) | 0x40
    return <unsigned short>(nan if value != value else rounded)
