/* Products of bfloat16 matrices with float32 sums by AMX, the tile registers of Intel's servers since 2023.

   A tile is 16 rows of 64 bytes. TDPBF16PS adds to C [16 x 16] float32 the product of A [16 x 32] and B [32 x 16], whose
   numbers lie in pairs: row p holds (B[2p, j], B[2p + 1, j]) for j = 0..15. Every product here is of a small matrix,
   the activations of a minibatch or the gradient by them, and a large one, W or its gradient. The small one is packed
   into tiles once (`amx_pack`) and read from the second cache. W is read from memory once, and called in before it is
   needed: in forward its tiles are loaded where they lie, for the gradient by the inputs a block is packed at a time.
   The gradient by W is written past the caches.

   Each function is compiled for AMX whatever the build's own CPU is: ask `amx_permitted` before the first call. */

#ifndef DISTBELIEF_AMX_H
#define DISTBELIEF_AMX_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    AMX_SIDE = 32,         /* of a square: two by two tiles of sums, two tiles of numbers */
    AMX_TILE = 512,        /* numbers in a tile of bfloat16 */
    AMX_SQUARE = 1024,     /* numbers in a square */
    AMX_BATCH = 256,       /* examples that a product takes at a time */
    AMX_RESIDENT = 655360, /* numbers of the small operand that stay in the second cache */
    AMX_PART = 8192,       /* inputs whose products with W are summed in one go, at most */
    AMX_TALL = 640,        /* sums of a panel of W, */
    AMX_DEPTH = 128,       /* over so many outputs: it, the next one and the sums stay in the second cache */
    AMX_LONGEST = 1024,    /* batch that the gradient by W takes in one go */
    AMX_NEAR = 16384,      /* numbers of the gradient by the outputs that stay in the first cache, */
    AMX_FAR = 131072,      /* and in the second, if the inputs do not */
};

/* What the small operand is packed for, by the product that it is in. */
enum { AMX_FORWARD, AMX_TO_WEIGHTS, AMX_TO_INPUTS };

static inline ptrdiff_t amx_up(ptrdiff_t size) { return (size + AMX_SIDE - 1) / AMX_SIDE * AMX_SIDE; }

static inline ptrdiff_t amx_least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

#if defined(__x86_64__) && defined(__linux__) && (__GNUC__ >= 11 || __clang_major__ >= 12)

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

/* The small operand b [rows, n], rows ldb apart, for a product: `amx_up(rows) * amx_up(n)` numbers, zeros at the edges,
   from a line of the cache on. Its squares follow each other as the product reads them: those with the same n, but for
   the gradient by weights those with the same rows. */
AMX_CODE static inline void amx_pack(int product, const uint16_t *b, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ldb,
                                     uint16_t *to) {
    const ptrdiff_t down = amx_up(rows) / AMX_SIDE, across = amx_up(n) / AMX_SIDE;
    for (ptrdiff_t r = 0; r < down; r++)
        for (ptrdiff_t c = 0; c < across; c++) {
            const uint16_t *from = b + AMX_SIDE * (r * ldb + c);
            const ptrdiff_t high = rows - AMX_SIDE * r, wide = n - AMX_SIDE * c;
            if (product == AMX_TO_WEIGHTS)
                amx_pack_column_pairs(from, ldb, high, wide, to + AMX_SQUARE * (r * across + c));
            else if (product == AMX_FORWARD)
                amx_pack_pairs(from, ldb, high, wide, to + AMX_SQUARE * (c * down + r));
            else
                amx_pack_columns(from, ldb, high, wide, to + AMX_SQUARE * (c * down + r));
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

AMX_INLINE void amx_load_sums(const float *sums) {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + 256, 64);
    _tile_loadd(2, sums + 512, 64);
    _tile_loadd(3, sums + 768, 64);
}

AMX_INLINE void amx_zero_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

AMX_INLINE void amx_store_sums(float *sums) {
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
    AMX_BARRIER();
}

/* Of a square of sums, the transpose. */
AMX_INLINE void amx_transpose_sums(float *sums) {
    __m512i tile[4][16];
    for (int t = 0; t < 4; t++) {
        for (int i = 0; i < 16; i++) tile[t][i] = _mm512_load_si512(sums + 256 * t + 16 * i);
        amx_transpose(tile[t]);
    }
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(sums + 256 * (t == 1 ? 2 : t == 2 ? 1 : t) + 16 * i, tile[t][i]);
}

/* How a square of sums goes to its place: as it is, onto what is there, or past the caches (whole lines only). */
enum { AMX_STORE, AMX_ADD, AMX_STREAM };

/* Rows first..last-1 of a square of sums to c, whose rows are ldc apart; c has so many columns from here on. */
AMX_INLINE void amx_write(const float *sums, ptrdiff_t first, ptrdiff_t last, ptrdiff_t columns, int how, float *c,
                          ptrdiff_t ldc) {
    for (ptrdiff_t r = first; r < last; r++)
        for (int half = 0; half < 2; half++) {
            __m512 row = _mm512_load_ps(sums + 512 * (r / 16) + 256 * half + 16 * (r % 16));
            ptrdiff_t wide = columns - 16 * half;
            float *to = c + r * ldc + 16 * half;
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

/* Numbers that are called into the second cache line by line: `lines` of each row. */
typedef struct {
    const uint16_t *at;
    ptrdiff_t step, lines, line, rows;
} AmxCalled;

AMX_INLINE void amx_call(AmxCalled *called, ptrdiff_t lines) {
    for (; lines > 0 && called->rows > 0; lines--) {
        _mm_prefetch((const char *)called->at, _MM_HINT_T1);
        called->at += AMX_SIDE;
        if (++called->line == called->lines) called->line = 0, called->rows--, called->at += called->step;
    }
}

/* c [rows, n] = w [rows, inner] b, w's rows ldw apart; b is packed for AMX_FORWARD: inner x n numbers.
   Tiles of w are loaded where they lie; while 32 rows are multiplied, the next ones are called. */
AMX_CODE static inline void amx_forward(const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, float *c, ptrdiff_t rows,
                                        ptrdiff_t n, ptrdiff_t inner) {
    _Alignas(64) uint16_t panel[AMX_SIDE * AMX_PART];
    _Alignas(64) float sums[AMX_SQUARE];
    const ptrdiff_t stride = amx_up(inner) * AMX_SIDE; /* from the squares of 32 examples to the next ones' */
    amx_configure();
    for (ptrdiff_t j = 0; j < n; j += AMX_BATCH) {
        const ptrdiff_t batch = amx_least(n - j, AMX_BATCH);
        const ptrdiff_t part = amx_least(AMX_RESIDENT / amx_up(batch), AMX_PART) / AMX_SIDE * AMX_SIDE;
        for (ptrdiff_t k = 0; k < inner; k += part) {
            const ptrdiff_t depth = amx_least(inner - k, part), squares = amx_up(depth) / AMX_SIDE;
            for (ptrdiff_t i = 0; i < rows; i += AMX_SIDE) {
                const ptrdiff_t high = amx_least(rows - i, AMX_SIDE);
                const uint16_t *large = w + i * ldw + k;
                ptrdiff_t ld = ldw, step = AMX_SIDE;
                if (high < AMX_SIDE || depth % AMX_SIDE) { /* at the edges with zeros */
                    for (ptrdiff_t d = 0; d < squares; d++)
                        amx_pack_rows(large + AMX_SIDE * d, ldw, high, depth - AMX_SIDE * d, panel + AMX_SQUARE * d);
                    AMX_BARRIER();
                    large = panel, ld = AMX_SIDE, step = AMX_SQUARE;
                }
                AmxCalled called = {w + (i + AMX_SIDE) * ldw + k, ldw - AMX_SIDE * squares, squares, 0,
                                    amx_least(rows - i - AMX_SIDE, AMX_SIDE)};
                const ptrdiff_t share = (AMX_SIDE * AMX_SIDE + batch - 1) / batch;
                for (ptrdiff_t l = 0; l < batch; l += AMX_SIDE) {
                    const uint16_t *small = b + (j + l) / AMX_SIDE * stride + AMX_SIDE * k;
                    amx_zero_sums();
                    for (ptrdiff_t d = 0; d < squares; d++) {
                        amx_multiply(large + step * d, ld, small + AMX_SQUARE * d);
                        amx_call(&called, share);
                    }
                    amx_store_sums(sums);
                    amx_write(sums, 0, high, batch - l, k ? AMX_ADD : AMX_STORE, c + i * n + j + l, n);
                }
            }
        }
    }
    _tile_release();
}

/* c [rows, n] = w' b, of w [inner, rows], its rows ldw apart; b is packed for AMX_TO_INPUTS: inner x n numbers.
   While a panel of w is multiplied, the next one is called. */
AMX_CODE static inline void amx_to_inputs(const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, float *c, ptrdiff_t rows,
                                 ptrdiff_t n, ptrdiff_t inner) {
    _Alignas(64) uint16_t block[AMX_SIDE * AMX_DEPTH];
    _Alignas(64) float sums[AMX_TALL * AMX_BATCH];
    const ptrdiff_t stride = amx_up(inner) * AMX_SIDE; /* from the squares of 32 examples to the next ones' */
    amx_configure();
    for (ptrdiff_t j = 0; j < n; j += AMX_BATCH) {
        const ptrdiff_t batch = amx_least(n - j, AMX_BATCH);
        for (ptrdiff_t i = 0; i < rows; i += AMX_TALL) {
            const ptrdiff_t tall = amx_least(rows - i, AMX_TALL);
            for (ptrdiff_t k = 0; k < inner; k += AMX_DEPTH) {
                const ptrdiff_t depth = amx_least(inner - k, AMX_DEPTH), apart = amx_up(depth) * AMX_SIDE;
                const int last = k + AMX_DEPTH >= inner;
                const ptrdiff_t next_i = last ? i + AMX_TALL : i, next_k = last ? 0 : k + AMX_DEPTH;
                const ptrdiff_t lines = amx_up(amx_least(rows - next_i, AMX_TALL)) / AMX_SIDE;
                AmxCalled called = {w + next_k * ldw + next_i, ldw - lines * AMX_SIDE, lines, 0,
                                    lines > 0 ? amx_least(inner - next_k, AMX_DEPTH) : 0};
                const ptrdiff_t steps = amx_up(tall) * apart / AMX_SIDE / AMX_SQUARE * (amx_up(batch) / AMX_SIDE);
                const ptrdiff_t share = (called.rows * lines + steps - 1) / steps;
                for (ptrdiff_t side = 0; side < tall; side += AMX_SIDE) {
                    for (ptrdiff_t d = 0; d < depth; d += AMX_SIDE)
                        amx_pack_pairs(w + (k + d) * ldw + i + side, ldw, depth - d, tall - side, block + AMX_SIDE * d);
                    AMX_BARRIER();
                    for (ptrdiff_t l = 0; l < batch; l += AMX_SIDE) {
                        const uint16_t *small = b + (j + l) / AMX_SIDE * stride + AMX_SIDE * k;
                        float *here = sums + side * amx_up(batch) + l * AMX_SIDE;
                        if (k)
                            amx_load_sums(here);
                        else
                            amx_zero_sums();
                        for (ptrdiff_t d = 0; d < apart; d += AMX_SQUARE) {
                            amx_multiply(small + d, AMX_SIDE, block + d);
                            amx_call(&called, share);
                        }
                        amx_store_sums(here);
                        if (!last) continue;
                        amx_transpose_sums(here);
                        amx_write(here, 0, amx_least(tall - side, AMX_SIDE), batch - l, AMX_STORE,
                                  c + (i + side) * n + j + l, n);
                    }
                }
            }
        }
    }
    _tile_release();
}

/* c [rows, columns] = a [rows, n] b', a's rows lda apart. b is packed for AMX_TO_WEIGHTS: columns x n numbers.
   While a square of c is computed, the one before it is written, past the caches. */
AMX_CODE static inline void amx_to_weights(const uint16_t *a, ptrdiff_t lda, const uint16_t *b, float *c,
                                           ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t n) {
    _Alignas(64) uint16_t panel[AMX_FAR];
    _Alignas(64) float sums[2][AMX_SQUARE];
    const ptrdiff_t stride = amx_up(n) * AMX_SIDE; /* from the squares of 32 columns to the next ones' */
    const int stream = n <= AMX_LONGEST && (uintptr_t)c % 64 == 0 && columns % 16 == 0;
    const ptrdiff_t room = columns * amx_up(n) < AMX_RESIDENT ? AMX_NEAR : AMX_FAR;
    amx_configure();
    for (ptrdiff_t k = 0; k < n; k += AMX_LONGEST) {
        const ptrdiff_t depth = amx_least(n - k, AMX_LONGEST), apart = amx_up(depth) * AMX_SIDE;
        const ptrdiff_t most = room < apart ? AMX_SIDE : room / apart * AMX_SIDE;
        const ptrdiff_t share = (AMX_SIDE * AMX_SQUARE + apart - 1) / apart; /* rows that are written at a time */
        const int how = k ? AMX_ADD : stream ? AMX_STREAM : AMX_STORE;
        for (ptrdiff_t i = 0; i < rows; i += most) {
            const ptrdiff_t tall = amx_least(rows - i, most);
            for (ptrdiff_t side = 0; side < tall; side += AMX_SIDE)
                for (ptrdiff_t d = 0; d < depth; d += AMX_SIDE)
                    amx_pack_rows(a + (i + side) * lda + k + d, lda, tall - side, depth - d,
                                  panel + side / AMX_SIDE * apart + AMX_SIDE * d);
            AMX_BARRIER();
            float *before = NULL; /* where the square goes that waits in the other sums */
            ptrdiff_t rows_before = 0, columns_before = 0, now = 0;
            for (ptrdiff_t j = 0; j < columns; j += AMX_SIDE)
                for (ptrdiff_t side = 0; side < tall; side += AMX_SIDE, now = !now) {
                    const uint16_t *large = panel + side / AMX_SIDE * apart;
                    const uint16_t *small = b + j / AMX_SIDE * stride + AMX_SIDE * k;
                    ptrdiff_t row = 0;
                    amx_zero_sums();
                    for (ptrdiff_t d = 0; d < apart; d += AMX_SQUARE, row += share) {
                        amx_multiply(large + d, AMX_SIDE, small + d);
                        amx_write(sums[!now], row, amx_least(row + share, rows_before), columns_before, how, before,
                                  columns);
                    }
                    amx_store_sums(sums[now]);
                    before = c + (i + side) * columns + j;
                    rows_before = amx_least(tall - side, AMX_SIDE);
                    columns_before = columns - j;
                }
            amx_write(sums[!now], 0, rows_before, columns_before, how, before, columns);
        }
    }
    _tile_release();
    _mm_sfence();
}

#else

static inline int amx_permitted(void) { return 0; }
static inline void amx_pack(int product, const uint16_t *b, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ldb, uint16_t *to) {}
static inline void amx_forward(const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, float *c, ptrdiff_t rows,
                               ptrdiff_t n, ptrdiff_t inner) {}
static inline void amx_to_inputs(const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, float *c, ptrdiff_t rows,
                                 ptrdiff_t n, ptrdiff_t inner) {}
static inline void amx_to_weights(const uint16_t *a, ptrdiff_t lda, const uint16_t *b, float *c, ptrdiff_t rows,
                                  ptrdiff_t columns, ptrdiff_t n) {}

#endif
#endif
