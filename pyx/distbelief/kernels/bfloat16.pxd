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


cdef extern from *:
    """
    #ifdef __AVX512BF16__
    #include <immintrin.h>
    /* Of n numbers those that fill whole registers; returns how many. */
    static inline ptrdiff_t distbelief_narrow(const float *values, unsigned short *out, ptrdiff_t n)
    {
        ptrdiff_t i = 0;
        for (; i + 32 <= n; i += 32) {
            __m512 low = _mm512_loadu_ps(values + i), high = _mm512_loadu_ps(values + i + 16);
            _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
        return i;
    }
    #else
    static inline ptrdiff_t distbelief_narrow(const float *values, unsigned short *out, ptrdiff_t n) { return 0; }
    #endif
    """
    Py_ssize_t narrow_registers "distbelief_narrow"(const float *values, unsigned short *out, Py_ssize_t n) nogil


cdef inline void narrow_normal(const float *values, unsigned short *out, Py_ssize_t size) noexcept nogil:
    """As narrow_bits, in half the time where the CPU can; there, what is smaller than every normal number becomes 0."""
    cdef Py_ssize_t i
    for i in range(narrow_registers(values, out, size), size):
        out[i] = narrow_bits(values[i])
