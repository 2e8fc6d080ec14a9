# Stores that go past the caches: what is written is not read soon, and no line is read before it is overwritten.

cdef extern from *:
    """
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #include <stdint.h>

    /* As memcpy. What is at `from` should be in the cache. */
    static inline void distbelief_stream(char *to, const char *from, size_t size)
    {
        size_t head = -(uintptr_t)to % 64;
        if (head > size)
            head = size;
        memcpy(to, from, head);
        to += head, from += head, size -= head;
        for (; size >= 64; to += 64, from += 64, size -= 64)
            for (int i = 0; i < 64; i += 16)
                _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(from + i)));
        memcpy(to, from, size);
    }

    /* Whoever is told of it afterwards finds it. */
    static inline void distbelief_streamed(void) { _mm_sfence(); }
    #else
    static inline void distbelief_stream(char *to, const char *from, size_t size) { memcpy(to, from, size); }
    static inline void distbelief_streamed(void) {}
    #endif
    """
    void stream "distbelief_stream"(void *to, const void *from_, size_t size) noexcept nogil
    void streamed "distbelief_streamed"() noexcept nogil
