/* Tiles of AMX, the matrix registers of Intel's servers since 2023, and the squares of 32 x 32 that they are used in.

   A tile is 16 rows of 64 bytes. TDPBF16PS adds to C [16 x 16] float32 the product of A [16 x 32] and B [32 x 16],
   whose numbers lie in pairs: row p holds (B[2p, j], B[2p + 1, j]) for j = 0..15.

   Each function is compiled for AMX whatever the build's own CPU is: ask `amx_permitted` before the first call. */

#ifndef DISTBELIEF_AMX_TILES_H
#define DISTBELIEF_AMX_TILES_H

#include <stddef.h>
#include <stdint.h>

enum {
    AMX_SIDE = 32,     /* of a square: two by two tiles of sums, two tiles of numbers */
    AMX_TILE = 512,    /* numbers in a tile of bfloat16 */
    AMX_SQUARE = 1024, /* numbers in a square */
};

static inline ptrdiff_t amx_up(ptrdiff_t size) { return (size + AMX_SIDE - 1) / AMX_SIDE * AMX_SIDE; }

static inline ptrdiff_t amx_least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Where compilers know AMX. */
#if defined(__x86_64__) && defined(__linux__) && (__GNUC__ >= 11 || __clang_major__ >= 12)

#define AMX_COMPILED 1

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX_CODE __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq")))
#define AMX_INLINE AMX_CODE static inline __attribute__((always_inline))

/* Before a tile is loaded, and after it is stored: compilers do not know that these touch memory. */
#define AMX_BARRIER() __asm__ volatile("" ::: "memory")

/* Whether the CPU has AMX for bfloat16, and Linux lets this process use it: it asks, for all its threads. */
static inline int amx_permitted(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 22 & 1)) return 0; /* AMX-TILE, AMX-BF16 */
    if (!(b >> 16 & 1) || !(b >> 30 & 1) || !(b >> 31 & 1) || !(b >> 17 & 1)) return 0; /* AVX512 F, BW, VL, DQ */
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

/* All eight tiles whole. Of the thread that calls; `_tile_release` when it is done. */
AMX_INLINE void amx_configure(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) tiles.bytes[i] = 64, tiles.rows[i] = 16;
    _tile_loadconfig(&tiles);
}

/* Rows 0..15 of 16 numbers of 4 bytes each, transposed. */
AMX_INLINE void amx_transpose(__m512i r[16]) {
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
AMX_INLINE void amx_pairs(__m512i a, __m512i b, __m512i *low, __m512i *high) {
    const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                           37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    *low = _mm512_permutex2var_epi16(a, first, b);
    *high = _mm512_permutex2var_epi16(a, _mm512_add_epi16(first, _mm512_set1_epi16(16)), b);
}

/* Row r of a square of which rows x columns numbers are there: zeros elsewhere. */
AMX_INLINE __m512i amx_row(const uint16_t *from, ptrdiff_t ld, ptrdiff_t r, ptrdiff_t rows, ptrdiff_t columns) {
    if (r >= rows) return _mm512_setzero_si512();
    if (columns >= AMX_SIDE) return _mm512_loadu_si512(from + r * ld);
    return _mm512_maskz_loadu_epi16((__mmask32)((1u << columns) - 1), from + r * ld);
}

/* A square as two tiles of pairs of rows: to[half][pair][column]. */
AMX_INLINE void amx_pack_pairs(const uint16_t *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns, uint16_t *to) {
    for (int p = 0; p < 16; p++) {
        __m512i low, high;
        amx_pairs(amx_row(from, ld, 2 * p, rows, columns), amx_row(from, ld, 2 * p + 1, rows, columns), &low, &high);
        _mm512_store_si512(to + AMX_SIDE * p, low);
        _mm512_store_si512(to + AMX_TILE + AMX_SIDE * p, high);
    }
}

/* A square as two tiles of columns: to[half][column][row]. */
AMX_INLINE void amx_pack_columns(const uint16_t *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns, uint16_t *to) {
    __m512i tile[2][16];
    for (int p = 0; p < 16; p++)
        amx_pairs(amx_row(from, ld, 2 * p, rows, columns), amx_row(from, ld, 2 * p + 1, rows, columns), &tile[0][p],
                  &tile[1][p]);
    for (int half = 0; half < 2; half++) {
        amx_transpose(tile[half]);
        for (int i = 0; i < 16; i++) _mm512_store_si512(to + half * AMX_TILE + AMX_SIDE * i, tile[half][i]);
    }
}

/* A square as two tiles of rows: to[half][row][column]. */
AMX_INLINE void amx_pack_rows(const uint16_t *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns, uint16_t *to) {
    for (int r = 0; r < AMX_SIDE; r++) _mm512_store_si512(to + AMX_SIDE * r, amx_row(from, ld, r, rows, columns));
}

/* A square as two tiles of pairs of columns: to[half][pair][row]. */
AMX_INLINE void amx_pack_column_pairs(const uint16_t *from, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns,
                                      uint16_t *to) {
    __m512i tile[16];
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 16; i++) tile[i] = amx_row(from, ld, 16 * half + i, rows, columns);
        amx_transpose(tile);
        for (int i = 0; i < 16; i++) _mm512_store_si512(to + half * AMX_TILE + AMX_SIDE * i, tile[i]);
    }
}

/* Tiles 0..3, two by two sums, += the square a, its rows lda apart, times the square b. */
AMX_INLINE void amx_multiply(const uint16_t *a, ptrdiff_t lda, const uint16_t *b) {
    _tile_loadd(4, a, 2 * lda);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + 16 * lda, 2 * lda);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, b + AMX_TILE, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
}

/* A square of sums in memory is row-major. */
AMX_INLINE void amx_load_sums(const float *sums) {
    _tile_loadd(0, sums, 4 * AMX_SIDE);
    _tile_loadd(1, sums + 16, 4 * AMX_SIDE);
    _tile_loadd(2, sums + 16 * AMX_SIDE, 4 * AMX_SIDE);
    _tile_loadd(3, sums + 16 * AMX_SIDE + 16, 4 * AMX_SIDE);
}

AMX_INLINE void amx_zero_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

AMX_INLINE void amx_store_sums(float *sums) {
    _tile_stored(0, sums, 4 * AMX_SIDE);
    _tile_stored(1, sums + 16, 4 * AMX_SIDE);
    _tile_stored(2, sums + 16 * AMX_SIDE, 4 * AMX_SIDE);
    _tile_stored(3, sums + 16 * AMX_SIDE + 16, 4 * AMX_SIDE);
    AMX_BARRIER();
}

/* Of a square of sums, the transpose. */
AMX_INLINE void amx_transpose_sums(float *sums) {
    __m512i tile[4][16]; /* at rows 16 (t / 2) and columns 16 (t % 2), and then the other way round */
    for (int t = 0; t < 4; t++) {
        for (int i = 0; i < 16; i++)
            tile[t][i] = _mm512_load_si512(sums + AMX_SIDE * (16 * (t / 2) + i) + 16 * (t % 2));
        amx_transpose(tile[t]);
    }
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(sums + AMX_SIDE * (16 * (t % 2) + i) + 16 * (t / 2), tile[t][i]);
}

/* How a square of sums goes to its place: as it is, onto what is there, or past the caches (whole lines only). */
enum { AMX_STORE, AMX_ADD, AMX_STREAM };

/* Rows first..last-1 of a square of sums to c, whose rows are ldc apart; c has so many columns from here on. */
AMX_INLINE void amx_write(const float *sums, ptrdiff_t first, ptrdiff_t last, ptrdiff_t columns, int how, float *c,
                          ptrdiff_t ldc) {
    for (ptrdiff_t r = first; r < last; r++)
        for (int half = 0; half < AMX_SIDE; half += 16) {
            __m512 row = _mm512_load_ps(sums + AMX_SIDE * r + half);
            ptrdiff_t wide = columns - half;
            float *to = c + r * ldc + half;
            if (wide <= 0) continue;
            if (wide >= 16 && how == AMX_STREAM) {
                _mm512_stream_ps(to, row);
            } else {
                __mmask16 there = wide >= 16 ? 0xffff : (__mmask16)((1u << wide) - 1);
                if (how == AMX_ADD) row = _mm512_add_ps(row, _mm512_maskz_loadu_ps(there, to));
                _mm512_mask_storeu_ps(to, there, row);
            }
        }
}

#else

#define AMX_COMPILED 0

static inline int amx_permitted(void) { return 0; }

#endif
#endif
