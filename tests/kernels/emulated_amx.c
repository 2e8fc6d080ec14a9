/* The products of product16.h by AMX, whose tile instructions are written out in C here: so their loops, and what they
   take for rows and strides of a tile, are tested on CPUs that have AVX-512 but no such registers. test_kernels_amx.py
   compiles this. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} Configuration;

static struct {
    uint8_t rows[16][64];
} tiles[8];
static int configured;
static int wrong; /* tiles used before they are configured as whole ones, or after their release */

static void emulated_configure(const void *what) {
    Configuration read;
    memcpy(&read, what, sizeof(read));
    configured = read.palette == 1 && read.start == 0;
    for (int i = 0; i < 8; i++) configured = configured && read.bytes[i] == 64 && read.rows[i] == 16;
    memset(tiles, 0xff, sizeof(tiles)); /* NaNs */
}

static void emulated_release(void) { configured = 0; }

static void emulated_zero(int tile) {
    wrong |= !configured;
    memset(&tiles[tile], 0, sizeof(tiles[tile]));
}

static void emulated_load(int tile, const void *from, long stride) {
    wrong |= !configured;
    for (int r = 0; r < 16; r++) memcpy(tiles[tile].rows[r], (const char *)from + r * stride, 64);
}

static void emulated_store(int tile, void *to, long stride) {
    wrong |= !configured;
    for (int r = 0; r < 16; r++) memcpy((char *)to + r * stride, tiles[tile].rows[r], 64);
}

static float emulated_wide(const uint8_t *at) {
    uint16_t bits;
    memcpy(&bits, at, sizeof(bits));
    uint32_t whole = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &whole, sizeof(value));
    return value;
}

/* Intel's manual, TDPBF16PS: row m, column n of c += the pairs of row m of a times those of column n of b. */
static void emulated_multiply(int c, int a, int b) {
    wrong |= !configured;
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float sum;
            memcpy(&sum, tiles[c].rows[m] + 4 * n, sizeof(sum));
            for (int k = 0; k < 16; k++)
                for (int half = 0; half < 4; half += 2)
                    sum += emulated_wide(tiles[a].rows[m] + 4 * k + half) *
                           emulated_wide(tiles[b].rows[k] + 4 * n + half);
            memcpy(tiles[c].rows[m] + 4 * n, &sum, sizeof(sum));
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_configure
#define _tile_release emulated_release
#define _tile_zero emulated_zero
#define _tile_loadd emulated_load
#define _tile_stored emulated_store
#define _tile_dpbf16ps emulated_multiply

#include "distbelief/kernels/product16.h"

#if !SQUARE_COMPILED
#error "a compiler that knows neither AMX nor AVX512-BF16"
#endif

typedef struct {
    float *out;
    ptrdiff_t n;
} Place;

static void put(void *to, float *sums, ptrdiff_t ld, ptrdiff_t row, ptrdiff_t column, ptrdiff_t rows,
                ptrdiff_t columns) {
    Place *place = to;
    for (ptrdiff_t r = 0; r < rows; r++)
        memcpy(place->out + (row + r) * place->n + column, sums + r * ld, columns * sizeof(float));
}

/* out [rows, n] = a b or a' b, as `product` says; a is of `inner` columns, or rows, and its rows are lda apart.
   `packed` begins a line. Returns whether tiles were used as they must be. */
int multiply(int product, const uint16_t *a, ptrdiff_t lda, const uint16_t *b, ptrdiff_t rows, ptrdiff_t n,
             ptrdiff_t inner, uint16_t *packed, float *out) {
    Place place = {out, n};
    wrong = 0;
    squares_pack(product, b, inner, n, n, 0, inner, packed);
    squares_product(BY_AMX, product, a, lda, packed, rows, n, inner, put, &place);
    return !wrong && !configured;
}

/* For g = a [rows, n] b', b [columns, n]: out = g; or, with w, in float32 or bfloat16, out += 3 g and w -= g / 4. */
int multiply_to_weights(const uint16_t *a, ptrdiff_t lda, const uint16_t *b, ptrdiff_t rows, ptrdiff_t columns,
                        ptrdiff_t n, uint16_t *packed, float *out, float *w, uint16_t *w16) {
    const int steps = w || w16;
    SquarePlace to = {out, w, w16, columns, columns, steps ? 3 : 1, 0.25, steps ? SQUARE_ADD : SQUARE_STORE};
    wrong = 0;
    squares_pack(PRODUCT_TO_WEIGHTS, b, columns, n, n, 0, columns, packed);
    squares_to_weights(BY_AMX, a, lda, packed, &to, rows, n);
    return !wrong && !configured;
}
