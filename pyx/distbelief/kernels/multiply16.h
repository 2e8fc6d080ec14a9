/* Squares of bfloat16 (squares.h) multiplied with float32 sums, in one of two ways:

   - by AMX, the matrix registers of Intel's servers since 2023. A tile is 16 rows of 64 bytes. TDPBF16PS adds to
     C [16 x 16] float32 the product of A [16 x 32] and B [32 x 16], B's numbers in pairs: row p of the tile holds
     (B[2p, j], B[2p + 1, j]) for j = 0..15.
   - by AVX512-BF16, which AMD's servers since 2022 have too. VDPBF16PS is one row of that: 16 sums += a pair of A times
     the pairs of B. So both read the same squares.

   Each function is compiled for both whatever the build's own CPU is: ask `multiply16_permitted` before the first call,
   and give what it answered as `way`, a constant wherever it decides. */

#ifndef DISTBELIEF_MULTIPLY16_H
#define DISTBELIEF_MULTIPLY16_H

#include "distbelief/kernels/squares.h"

/* Who multiplies. */
enum { BY_NOTHING, BY_AVX512, BY_AMX };

#if SQUARE_COMPILED

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether the CPU has what a way needs, and Linux lets this process use it: for AMX it asks, for all its threads. */
static inline int multiply16_permitted(int way) {
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return 0;
    if (way == BY_AVX512) return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 5 & 1;
    if (way != BY_AMX || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!(d >> 24 & 1) || !(d >> 22 & 1)) return 0; /* AMX-TILE, AMX-BF16 */
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

/* Before a thread's first square. All eight tiles are whole. */
SQUARE_INLINE void multiply16_begin(int way) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) tiles = {.palette = 1};
    if (way != BY_AMX) return;
    for (int i = 0; i < 8; i++) tiles.bytes[i] = 64, tiles.rows[i] = 16;
    _tile_loadconfig(&tiles);
}

/* After its last. */
SQUARE_INLINE void multiply16_end(int way) {
    if (way == BY_AMX) _tile_release();
}

/* Something that is done bit by bit while squares are multiplied: four bits a square. */
typedef void (*Meanwhile)(void *what, int bits);

/* `sums`, a square, row-major, = (or, `onto`, +=) the squares a, each `step` behind the one before it and its rows lda
   apart, times the squares b, which follow each other: the sum over `squares` products. */
SQUARE_INLINE void multiply16_by_amx(const uint16_t *a, ptrdiff_t lda, ptrdiff_t step, const uint16_t *b,
                                     ptrdiff_t squares, int onto, float *sums, Meanwhile meanwhile, void *what) {
    SQUARE_BARRIER();
    if (onto) { /* tiles 0..3: two by two of sums */
        _tile_loadd(0, sums, 4 * SQUARE_SIDE);
        _tile_loadd(1, sums + 16, 4 * SQUARE_SIDE);
        _tile_loadd(2, sums + 16 * SQUARE_SIDE, 4 * SQUARE_SIDE);
        _tile_loadd(3, sums + 16 * SQUARE_SIDE + 16, 4 * SQUARE_SIDE);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (ptrdiff_t d = 0; d < squares; d++, a += step, b += SQUARE_SIZE) {
        _tile_loadd(4, a, 2 * lda);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, a + 16 * lda, 2 * lda);
        _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(7, b + SQUARE_TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
        meanwhile(what, 4);
    }
    _tile_stored(0, sums, 4 * SQUARE_SIDE);
    _tile_stored(1, sums + 16, 4 * SQUARE_SIDE);
    _tile_stored(2, sums + 16 * SQUARE_SIDE, 4 * SQUARE_SIDE);
    _tile_stored(3, sums + 16 * SQUARE_SIDE + 16, 4 * SQUARE_SIDE);
    SQUARE_BARRIER();
}

/* The same, 8 x 32 sums at a time: 16 registers. */
SQUARE_INLINE void multiply16_by_avx512(const uint16_t *a, ptrdiff_t lda, ptrdiff_t step, const uint16_t *b,
                                        ptrdiff_t squares, int onto, float *sums, Meanwhile meanwhile, void *what) {
    for (int r = 0; r < SQUARE_SIDE; r += 8) {
        float *here = sums + SQUARE_SIDE * r;
        const uint16_t *left = a + r * lda, *right = b;
        __m512 sum[8][2];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            for (int half = 0; half < 2; half++)
                sum[i][half] = onto ? _mm512_load_ps(here + SQUARE_SIDE * i + 16 * half) : _mm512_setzero_ps();
        for (ptrdiff_t d = 0; d < squares; d++, left += step, right += SQUARE_SIZE) {
            for (int p = 0; p < 16; p++) {
                const __m512bh low = (__m512bh)_mm512_load_si512(right + SQUARE_SIDE * p);
                const __m512bh high = (__m512bh)_mm512_load_si512(right + SQUARE_TILE + SQUARE_SIDE * p);
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++) {
                    int pair;
                    memcpy(&pair, left + i * lda + 2 * p, sizeof(pair));
                    const __m512bh pairs = (__m512bh)_mm512_set1_epi32(pair);
                    sum[i][0] = _mm512_dpbf16_ps(sum[i][0], pairs, low);
                    sum[i][1] = _mm512_dpbf16_ps(sum[i][1], pairs, high);
                }
            }
            meanwhile(what, 1);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            for (int half = 0; half < 2; half++)
                _mm512_store_ps(here + SQUARE_SIDE * i + 16 * half, sum[i][half]);
    }
}

SQUARE_INLINE void multiply16(int way, const uint16_t *a, ptrdiff_t lda, ptrdiff_t step, const uint16_t *b,
                              ptrdiff_t squares, int onto, float *sums, Meanwhile meanwhile, void *what) {
    if (way == BY_AMX)
        multiply16_by_amx(a, lda, step, b, squares, onto, sums, meanwhile, what);
    else
        multiply16_by_avx512(a, lda, step, b, squares, onto, sums, meanwhile, what);
}

#else

static inline int multiply16_permitted(int way) { return 0; }

#endif
#endif
