# Stores that go past the caches: what is written is not read soon, and no line is read before it is overwritten.

cdef extern from *:
    """
    #include <string.h>
    #ifdef __SSE2__
    #include <immintrin.h>
    #include <stdint.h>

    #ifdef __AVX512F__
    #define DISTBELIEF_STREAM_LINE(to, from) _mm512_stream_si512((void *)(to), _mm512_loadu_si512(from))
    #else
    #define DISTBELIEF_STREAM_LINE(to, from)                                                                \\
        for (int i = 0; i < 64; i += 16)                                                                    \\
            _mm_stream_si128((__m128i *)((to) + i), _mm_loadu_si128((const __m128i *)((from) + i)))
    #endif

    /* As memcpy. What is copied should be in the cache. */
    static inline void distbelief_stream(void *there, const void *here, size_t size)
    {
        char *to = there;
        const char *from = here;
        size_t head = -(uintptr_t)to % 64;
        if (head > size)
            head = size;
        memcpy(to, from, head);
        to += head, from += head, size -= head;
        for (; size >= 64; to += 64, from += 64, size -= 64) {
            DISTBELIEF_STREAM_LINE(to, from);
        }
        memcpy(to, from, size);
    }

    /* Whoever is told of it afterwards finds it. */
    static inline void distbelief_streamed(void) { _mm_sfence(); }

    #ifdef __AVX512F__
    #define DISTBELIEF_STREAMS_WIDE 1
    static inline float distbelief_wide(unsigned short bits)
    {
        uint32_t whole = (uint32_t)bits << 16;
        float value;
        memcpy(&value, &whole, sizeof(value));
        return value;
    }

    /* to = from, of bfloat16, a register at a time. */
    static inline void distbelief_stream_wide(float *to, const unsigned short *from, size_t size)
    {
        for (; size && (uintptr_t)to % 64; size--)
            *to++ = distbelief_wide(*from++);
        for (; size >= 16; size -= 16, to += 16, from += 16) {
            __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
            _mm512_stream_si512((void *)to, _mm512_slli_epi32(bits, 16));
        }
        for (; size; size--)
            *to++ = distbelief_wide(*from++);
    }
    #endif
    #else
    static inline void distbelief_stream(void *to, const void *from, size_t size) { memcpy(to, from, size); }
    static inline void distbelief_streamed(void) {}
    #endif
    #ifndef DISTBELIEF_STREAMS_WIDE
    #define DISTBELIEF_STREAMS_WIDE 0
    static inline void distbelief_stream_wide(float *to, const unsigned short *from, size_t size) {}
    #endif
    """
    bint STREAMS_WIDE "DISTBELIEF_STREAMS_WIDE"
    void stream_wide "distbelief_stream_wide"(float *to, const unsigned short *from_, size_t size) noexcept nogil
    void stream "distbelief_stream"(void *to, const void *from_, size_t size) noexcept nogil
    void streamed "distbelief_streamed"() noexcept nogil
