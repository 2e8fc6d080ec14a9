/* Squares of 32 x 32 numbers, in which products of bfloat16 are computed (multiply16.h): packed, transposed, written.

   A packed square is two tiles of 16 rows of 64 bytes each. */

#ifndef DISTBELIEF_SQUARES_H
#define DISTBELIEF_SQUARES_H

#include <stddef.h>
#include <stdint.h>

enum {
    SQUARE_SIDE = 32,
    SQUARE_TILE = 512,  /* numbers in a tile of bfloat16 */
    SQUARE_SIZE = 1024, /* numbers in a square */
};

static inline ptrdiff_t square_up(ptrdiff_t size) { return (size + SQUARE_SIDE - 1) / SQUARE_SIDE * SQUARE_SIDE; }

static inline ptrdiff_t square_least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* How a square of sums goes to its place: as it is, onto what is there, or past the caches (whole lines only). */
enum { SQUARE_STORE, SQUARE_ADD, SQUARE_STREAM };

/* Where a square of sums goes: c = (or +=) weight sums, of which so many columns are left from here on; and w -= rate
   sums, in float32 or bfloat16, unless both are NULL. The rows of all are ld apart. */
typedef struct {
    float *c, *w;
    uint16_t *w16;
    ptrdiff_t ld, columns;
    float weight, rate;
    int how;
} SquarePlace;

/* Where compilers know AVX512-BF16 and AMX. */
#if defined(__x86_64__) && defined(__linux__) && (__GNUC__ >= 11 || __clang_major__ >= 12)

#define SQUARE_COMPILED 1

#include <immintrin.h>
#include <string.h>

#define SQUARE_CODE __attribute__((target("amx-tile,amx-bf16,avx512bf16,avx512f,avx512bw,avx512vl,avx512dq")))
#define SQUARE_INLINE SQUARE_CODE static inline __attribute__((always_inline))

/* Before a tile of AMX is loaded, and after it is stored: compilers do not know that these touch memory. */
#define SQUARE_BARRIER() __asm__ volatile("" ::: "memory")

/* Rows 0..15 of 16 numbers of 4 bytes each, transposed. */
SQUARE_INLINE void square_transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* to[0..1] = the pairs (a[j], b[j]) of columns 0..15 and 16..31. */
SQUARE_INLINE void square_pairs(__m512i a, __m512i b, __m512i *low, __m512i *high) {
    const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                           37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    *low = _mm512_permutex2var_epi16(a, first, b);
    *high = _mm512_permutex2var_epi16(a, _mm512_add_epi16(first, _mm512_set1_epi16(16)), b);
}

/* Row r of a square of which rows x columns numbers are there: zeros elsewhere. */
SQUARE_INLINE __m512i square_row(const uint16_t *from, ptrdiff_t ld, ptrdiff_t r, ptrdiff_t rows, ptrdiff_t columns) {
    if (r >= rows) return _mm512_setzero_si512();
    if (columns >= SQUARE_SIDE) return _mm512_loadu_si512(from + r * ld);
    return _mm512_maskz_loadu_epi16((__mmask32)((1u << columns) - 1), from + r * ld);
}

/* A square as two tiles of pairs of rows: to[half][pair][column]. */
SQUARE_INLINE void square_pack_pairs(const uint16_t *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns,
                                     uint16_t *to) {
    for (int p = 0; p < 16; p++) {
        __m512i low, high;
        square_pairs(square_row(from, ld, 2 * p, rows, columns), square_row(from, ld, 2 * p + 1, rows, columns), &low,
                     &high);
        _mm512_store_si512(to + SQUARE_SIDE * p, low);
        _mm512_store_si512(to + SQUARE_TILE + SQUARE_SIDE * p, high);
    }
}

/* A square as two tiles of columns: to[half][column][row]. */
SQUARE_INLINE void square_pack_columns(const uint16_t *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns,
                                       uint16_t *to) {
    __m512i tile[2][16];
    for (int p = 0; p < 16; p++)
        square_pairs(square_row(from, ld, 2 * p, rows, columns), square_row(from, ld, 2 * p + 1, rows, columns),
                     &tile[0][p], &tile[1][p]);
    for (int half = 0; half < 2; half++) {
        square_transpose(tile[half]);
        for (int i = 0; i < 16; i++) _mm512_store_si512(to + half * SQUARE_TILE + SQUARE_SIDE * i, tile[half][i]);
    }
}

/* A square as two tiles of rows: to[half][row][column]. */
SQUARE_INLINE void square_pack_rows(const uint16_t *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns,
                                    uint16_t *to) {
    for (int r = 0; r < SQUARE_SIDE; r++)
        _mm512_store_si512(to + SQUARE_SIDE * r, square_row(from, ld, r, rows, columns));
}

/* A square as two tiles of pairs of columns: to[half][pair][row]. */
SQUARE_INLINE void square_pack_column_pairs(const uint16_t *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns,
                                            uint16_t *to) {
    __m512i tile[16];
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 16; i++) tile[i] = square_row(from, ld, 16 * half + i, rows, columns);
        square_transpose(tile);
        for (int i = 0; i < 16; i++) _mm512_store_si512(to + half * SQUARE_TILE + SQUARE_SIDE * i, tile[i]);
    }
}

/* Of a square of sums, the transpose. */
SQUARE_INLINE void square_transpose_sums(float *sums) {
    __m512i tile[4][16]; /* at rows 16 (t / 2) and columns 16 (t % 2), and then the other way round */
    for (int t = 0; t < 4; t++) {
        for (int i = 0; i < 16; i++)
            tile[t][i] = _mm512_load_si512(sums + SQUARE_SIDE * (16 * (t / 2) + i) + 16 * (t % 2));
        square_transpose(tile[t]);
    }
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(sums + SQUARE_SIDE * (16 * (t % 2) + i) + 16 * (t / 2), tile[t][i]);
}

/* Rounded to nearest, ties to even; a NaN stays one. */
SQUARE_INLINE __m256i square_round(__m512 values) {
    const __m512i bits = _mm512_castps_si512(values), upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __mmask16 stray = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_mask_or_epi32(_mm512_srli_epi32(sum, 16), stray, upper, _mm512_set1_epi32(0x40)));
}

/* Rows first..last-1 of a square of sums to their place. */
SQUARE_INLINE void square_write(const float *sums, ptrdiff_t first, ptrdiff_t last, const SquarePlace *place) {
    const __m512 rate = _mm512_set1_ps(place->rate);
    for (ptrdiff_t r = first; r < last; r++)
        for (int half = 0; half < SQUARE_SIDE; half += 16) {
            const __m512 g = _mm512_load_ps(sums + SQUARE_SIDE * r + half);
            const ptrdiff_t wide = place->columns - half, at = r * place->ld + half;
            if (wide <= 0) continue;
            const __mmask16 there = wide >= 16 ? 0xffff : (__mmask16)((1u << wide) - 1);
            const __m512 before = place->how == SQUARE_ADD ? _mm512_maskz_loadu_ps(there, place->c + at)
                                                           : _mm512_setzero_ps();
            const __m512 sum = _mm512_fmadd_ps(_mm512_set1_ps(place->weight), g, before);
            if (place->w) {
                const __m512 w = _mm512_maskz_loadu_ps(there, place->w + at);
                _mm512_mask_storeu_ps(place->w + at, there, _mm512_fnmadd_ps(rate, g, w));
            } else if (place->w16) {
                const __m512i w = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, place->w16 + at));
                const __m512 step = _mm512_fnmadd_ps(rate, g, _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)));
                _mm256_mask_storeu_epi16(place->w16 + at, there, square_round(step));
            }
            if (wide >= 16 && place->how == SQUARE_STREAM)
                _mm512_stream_ps(place->c + at, sum);
            else
                _mm512_mask_storeu_ps(place->c + at, there, sum);
        }
}

/* Calls for what square_write will read of those rows. */
SQUARE_INLINE void square_call(ptrdiff_t first, ptrdiff_t last, const SquarePlace *place) {
    for (ptrdiff_t r = first; r < last; r++)
        for (int half = 0; half < SQUARE_SIDE; half += 16) {
            if (place->how == SQUARE_ADD) __builtin_prefetch(place->c + r * place->ld + half, 1);
            if (place->w) __builtin_prefetch(place->w + r * place->ld + half, 1);
            if (place->w16 && !half) __builtin_prefetch(place->w16 + r * place->ld, 1);
        }
}

#else

#define SQUARE_COMPILED 0

#endif
#endif
