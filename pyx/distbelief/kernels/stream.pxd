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

    #else
    static inline void distbelief_stream(void *to, const void *from, size_t size) { memcpy(to, from, size); }
    static inline void distbelief_streamed(void) {}
    #endif
    """
    void stream "distbelief_stream"(void *to, const void *from_, size_t size) noexcept nogil
    void streamed "distbelief_streamed"() noexcept nogil
