/* Sums of products over small blocks, held in registers: what all passes of a filter layer consist of.

   Included by product.pxd once per float type, with REAL and NAME. Vectors are GCC's and Clang's generic ones, so any
   CPU will do. Intrinsics would gain nothing: the inner loop compiles to loads, broadcasts and multiply-adds alone. */

#ifndef DISTBELIEF_PRODUCT_H
#define DISTBELIEF_PRODUCT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes per register, and the tallest tile two registers wide that leaves some for the operands: WIDE_ROWS. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define WIDE_ROWS 12
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define WIDE_ROWS 6
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define WIDE_ROWS 12
#else
#define VECTOR_BYTES 16
#define WIDE_ROWS 6
#endif
#define NARROW_ROWS 12

/* Stores of whole registers past the caches, to aligned places; where there are none, ordinary ones. */
#if defined(__AVX__)
#include <immintrin.h>
#if defined(__AVX512F__)
#define STREAM(place, bits) _mm512_stream_si512((void *)(place), bits)
typedef __m512i Streamed;
#else
#define STREAM(place, bits) _mm256_stream_si256((__m256i *)(place), bits)
typedef __m256i Streamed;
#endif
#define CAN_STREAM(type) (sizeof(type) == sizeof(Streamed))
#define FENCE() _mm_sfence()
#else
#define STREAM(place, bits) ((void)(bits))
typedef char Streamed;
#define CAN_STREAM(type) 0
#define FENCE() ((void)0)
#endif
#define CACHE_LINE 64

/* c[i, j] (+)= the sum of a[i, o, k] b[o, k, j] over o < outer, k < inner, for i < rows, j < columns.
   The letters after an operand's name say which index a step, in elements, belongs to; j is contiguous.
   a_ahead, b_ahead, c_ahead: how far from a, b and c lies what the next call will use. It is brought into the cache
   meanwhile: in steps like these no hardware sees a pattern, and without it all passes wait for memory. 0: not needed.
   stream: c is not to be read soon, and begins a line of the cache in every row; FENCE before others read it. */
typedef struct {
    ptrdiff_t rows, columns, outer, inner;
    ptrdiff_t a_i, a_o, a_k, b_o, b_k, c_i;
    ptrdiff_t a_ahead, b_ahead, c_ahead;
    int add, stream;
} Product;

#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 16") for

#endif

typedef REAL NAME(whole) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef REAL NAME(half) __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(REAL)), may_alias));
typedef REAL NAME(single);

/* The lines of a that a tile of the next call will use for the same o. */
INLINE void NAME(fetch)(const Product *p, const int rows, const REAL *a) {
    if (p->a_k == 1)
        for (int i = 0; i < rows; i++)
            for (ptrdiff_t k = 0; k < p->inner; k += CACHE_LINE / sizeof(REAL))
                __builtin_prefetch(a + i * p->a_i + k + p->a_ahead);
    else
        for (ptrdiff_t k = 0; k < p->inner; k++) __builtin_prefetch(a + k * p->a_k + p->a_ahead);
}

/* A tile of `rows` x `vectors`, both known to the compiler. Volatile: the vectors of b are to be loaded once, not by
   each multiplication that uses them. */
#define TILE(TYPE, vectors)                                                                        \
    INLINE void NAME(TYPE##_tile_##vectors)(const Product *p, const int rows, const REAL *a,       \
                                            const REAL *b, REAL *c) {                              \
        typedef NAME(TYPE) vector;                                                                 \
        const ptrdiff_t a_i = p->a_i, a_k = p->a_k, b_k = p->b_k, c_i = p->c_i, inner = p->inner;  \
        vector sum[NARROW_ROWS][vectors];                                                          \
        UNROLLED(int i = 0; i < rows; i++)                                                         \
            UNROLLED(int v = 0; v < vectors; v++)                                                  \
                sum[i][v] = p->add ? ((const vector *)(c + i * c_i))[v] : (vector){0};             \
        if (p->c_ahead)                                                                            \
            UNROLLED(int i = 0; i < rows; i++) __builtin_prefetch(c + i * c_i + p->c_ahead, 1);    \
        for (ptrdiff_t o = 0; o < p->outer; o++) {                                                 \
            const REAL *x = a + o * p->a_o, *y = b + o * p->b_o;                                   \
            if (p->a_ahead) NAME(fetch)(p, rows, x);                                               \
            for (ptrdiff_t k = 0; k < inner; k++, x += a_k, y += b_k) {                            \
                vector row[vectors];                                                               \
                if (p->b_ahead)                                                                    \
                    UNROLLED(int v = 0; v < vectors; v++)                                          \
                        __builtin_prefetch((const vector *)(y + p->b_ahead) + v, 0, 2);            \
                UNROLLED(int v = 0; v < vectors; v++) row[v] = ((const volatile vector *)y)[v];    \
                UNROLLED(int i = 0; i < rows; i++)                                                 \
                    UNROLLED(int v = 0; v < vectors; v++) sum[i][v] += x[i * a_i] * row[v];        \
            }                                                                                      \
        }                                                                                          \
        if (CAN_STREAM(vector) && p->stream)                                                       \
            UNROLLED(int i = 0; i < rows; i++)                                                     \
                UNROLLED(int v = 0; v < vectors; v++) {                                            \
                    Streamed bits;                                                                 \
                    memcpy(&bits, &sum[i][v], CAN_STREAM(vector) ? sizeof(bits) : 0);              \
                    STREAM((vector *)(c + i * c_i) + v, bits);                                     \
                }                                                                                  \
        else                                                                                       \
            UNROLLED(int i = 0; i < rows; i++)                                                     \
                UNROLLED(int v = 0; v < vectors; v++) ((vector *)(c + i * c_i))[v] = sum[i][v];    \
    }

#define CASE(tile, n) case n: tile(p, n, a, b, c); break;
#define UP_TO_6(tile) CASE(tile, 1) CASE(tile, 2) CASE(tile, 3) CASE(tile, 4) CASE(tile, 5) CASE(tile, 6)
#define UP_TO_12(tile) \
    UP_TO_6(tile) CASE(tile, 7) CASE(tile, 8) CASE(tile, 9) CASE(tile, 10) CASE(tile, 11) CASE(tile, 12)

/* A strip of c, `vectors` wide: all its rows, in tiles of heights as equal as can be. */
#define STRIP(TYPE, vectors, tallest, CASES)                                                       \
    TILE(TYPE, vectors)                                                                            \
    static void NAME(TYPE##_strip_##vectors)(const Product *all, const REAL *a, const REAL *b, REAL *c) { \
        Product tile = *all;                                                                       \
        const Product *p = &tile;                                                                  \
        ptrdiff_t rows = p->rows;                                                                  \
        for (ptrdiff_t tiles = (rows + tallest - 1) / tallest; tiles; tiles--) {                   \
            const ptrdiff_t height = (rows + tiles - 1) / tiles;                                   \
            switch (height) { CASES(NAME(TYPE##_tile_##vectors)) }                                 \
            rows -= height, a += height * p->a_i, c += height * p->c_i;                            \
            tile.b_ahead = 0; /* once is enough */                                                 \
        }                                                                                          \
    }

#if WIDE_ROWS == 12
STRIP(whole, 2, WIDE_ROWS, UP_TO_12)
#else
STRIP(whole, 2, WIDE_ROWS, UP_TO_6)
#endif
STRIP(whole, 1, NARROW_ROWS, UP_TO_12)
STRIP(half, 1, NARROW_ROWS, UP_TO_12)
STRIP(single, 1, NARROW_ROWS, UP_TO_12)

static void NAME(product)(const Product *all, const REAL *a, const REAL *b, REAL *c) {
    const ptrdiff_t lanes = VECTOR_BYTES / sizeof(REAL), columns = all->columns;
    Product strip = *all;
    ptrdiff_t j = 0;
    for (; columns - j >= 2 * lanes; j += 2 * lanes) {
        NAME(whole_strip_2)(&strip, a, b + j, c + j);
        strip.a_ahead = 0; /* once is enough */
    }
    for (; columns - j >= lanes; j += lanes) NAME(whole_strip_1)(&strip, a, b + j, c + j);
    if (j < columns && !all->add && columns >= lanes) {
        /* A whole vector that ends with the row: some columns are computed twice, to the same values. */
        NAME(whole_strip_1)(&strip, a, b + columns - lanes, c + columns - lanes);
        return;
    }
    for (; columns - j >= lanes / 2; j += lanes / 2) NAME(half_strip_1)(&strip, a, b + j, c + j);
    for (; j < columns; j++) NAME(single_strip_1)(&strip, a, b + j, c + j);
}

#undef TILE
#undef CASE
#undef UP_TO_6
#undef UP_TO_12
#undef STRIP
