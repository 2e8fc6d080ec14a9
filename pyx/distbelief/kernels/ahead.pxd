# Asking for memory before it is needed: the processor's own prefetching ends with each page, and a shard's window lies
# in small ones; and what a core has under way by itself does not use all that the memory gives.

cdef extern from *:
    """
    #define distbelief_ahead(place) __builtin_prefetch(place, 1)
    """
    void ahead "distbelief_ahead"(const void *place) noexcept nogil

# A pass over long vectors asks for what it needs so many elements later, before each stride.
cdef enum:
    AHEAD = 512
    STRIDE = 64
