/* The gradient by the weights of a dense layer, taken in while it is still in registers: it is added to what has
   accrued, and the weights take their step. Nobody else wants it, so it is never written.

   Included by blocked.pxd once per float type, after blocked.h, with REAL and NAME. */

#ifndef DISTBELIEF_ACCRUE_H
#define DISTBELIEF_ACCRUE_H

#define VECTORS 2 /* in a row of a tile: STRIP columns */

#endif

typedef REAL NAME(vector) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

/* What becomes of a gradient g: sums += weight g, or if `fresh` sums = weight g; and w -= rate g, unless w is NULL.
   stream: sums go past the caches; only fresh ones, which begin a line of the cache in every row. */
typedef struct {
    REAL *sums, *w;
    REAL weight, rate;
    int fresh, stream;
} NAME(Accrual);

/* A row of a tile, for the numbers of the result from `place` on. */
INLINE void NAME(accrue_row)(const NAME(Accrual) into, ptrdiff_t place, const NAME(vector) *row) {
    NAME(vector) *sums = (NAME(vector) *)(into.sums + place), before[VECTORS], weights[VECTORS];
    NAME(vector) *w = into.w ? (NAME(vector) *)(into.w + place) : NULL;
    UNROLLED(int v = 0; v < VECTORS; v++) before[v] = into.fresh ? (NAME(vector)){0} : sums[v];
    if (w) /* volatile: before the sums are stored, which often lie a multiple of 4 KB away */
        UNROLLED(int v = 0; v < VECTORS; v++) weights[v] = ((const volatile NAME(vector) *)w)[v];
    UNROLLED(int v = 0; v < VECTORS; v++) {
        const NAME(vector) sum = before[v] + into.weight * row[v];
        if (CAN_STREAM(sum) && into.stream) {
            Streamed bits;
            memcpy(&bits, &sum, CAN_STREAM(sum) ? sizeof(bits) : 0);
            STREAM(sums + v, bits);
        } else
            sums[v] = sum;
    }
    if (w)
        UNROLLED(int v = 0; v < VECTORS; v++) w[v] = weights[v] - into.rate * row[v];
}

/* The same for a tile [height, STRIP] of which only some columns belong to the result. */
static __attribute__((noinline)) void NAME(accrue_part)(const NAME(Accrual) into, ptrdiff_t place, ptrdiff_t ld,
                                                        const REAL *tile, ptrdiff_t height, ptrdiff_t columns) {
    for (ptrdiff_t i = 0; i < height; i++, place += ld, tile += STRIP)
        for (ptrdiff_t j = 0; j < columns; j++) {
            REAL *sum = into.sums + place + j;
            *sum = (into.fresh ? 0 : *sum) + into.weight * tile[j];
            if (into.w) into.w[place + j] -= into.rate * tile[j];
        }
}

/* g [height, STRIP] += a [height, inner] strip [inner, STRIP]; its height is known to the compiler, a's rows are a_i
   apart. */
INLINE void NAME(accrue_sum)(const int height, const REAL *a, ptrdiff_t a_i, const REAL *strip, ptrdiff_t inner,
                             NAME(vector) (*g)[VECTORS]) {
    for (ptrdiff_t k = 0; k < inner; k++, a++, strip += STRIP) {
        NAME(vector) row[VECTORS];
        /* Volatile: to be loaded once, not by each multiplication. */
        UNROLLED(int v = 0; v < VECTORS; v++) row[v] = ((const volatile NAME(vector) *)strip)[v];
        UNROLLED(int i = 0; i < height; i++)
            UNROLLED(int v = 0; v < VECTORS; v++) g[i][v] += a[i * a_i] * row[v];
    }
}

/* Calls for what lies in a tile's place, its rows ld apart. */
INLINE void NAME(accrue_call)(const int height, const REAL *place, ptrdiff_t ld) {
    UNROLLED(int i = 0; i < height; i++)
        UNROLLED(int v = 0; v < VECTORS; v++) __builtin_prefetch((const NAME(vector) *)(place + i * ld) + v, 1);
}

/* A tile, for the rows of the result from `place` on, ld apart. Those of the tile below are called meanwhile: the sums
   first, the weights later, as all at once are more than a core can have under way. */
INLINE void NAME(accrue_tile)(const int height, const NAME(Accrual) into, ptrdiff_t place, ptrdiff_t ld,
                              const REAL *a, ptrdiff_t a_i, const REAL *strip, ptrdiff_t columns, ptrdiff_t inner) {
    NAME(vector) g[WIDE_ROWS][VECTORS];
    const ptrdiff_t below = place + height * ld, half = inner / 2;
    UNROLLED(int i = 0; i < height; i++)
        UNROLLED(int v = 0; v < VECTORS; v++) g[i][v] = (NAME(vector)){0};
    if (!into.stream) NAME(accrue_call)(height, into.sums + below, ld);
    NAME(accrue_sum)(height, a, a_i, strip, half, g);
    if (into.w) NAME(accrue_call)(height, into.w + below, ld);
    NAME(accrue_sum)(height, a + half, a_i, strip + half * STRIP, inner - half, g);
    if (columns == STRIP) {
        UNROLLED(int i = 0; i < height; i++) NAME(accrue_row)(into, place + i * ld, g[i]);
    } else {
        REAL tile[WIDE_ROWS * STRIP];
        UNROLLED(int i = 0; i < height; i++)
            UNROLLED(int v = 0; v < VECTORS; v++) ((NAME(vector) *)(tile + i * STRIP))[v] = g[i][v];
        NAME(accrue_part)(into, place, ld, tile, height, columns);
    }
}

/* A function for each height: together they are too much for the compiler, which loses its grip on the registers. */
#define TILE(n)                                                                                                        \
    static __attribute__((noinline)) void NAME(accrue_tile_##n)(                                                       \
        NAME(Accrual) into, ptrdiff_t place, ptrdiff_t ld, const REAL *a, ptrdiff_t a_i, const REAL *strip,            \
        ptrdiff_t columns, ptrdiff_t inner) {                                                                          \
        NAME(accrue_tile)(n, into, place, ld, a, a_i, strip, columns, inner);                                          \
    }
#define CASE(n)                                                                                                        \
    case n: NAME(accrue_tile_##n)(into, place, ld, a, a_i, strip, columns, inner); break;
#if WIDE_ROWS == 12
#define HEIGHTS(each)                                                                                                  \
    each(1) each(2) each(3) each(4) each(5) each(6) each(7) each(8) each(9) each(10) each(11) each(12)
#else
#define HEIGHTS(each) each(1) each(2) each(3) each(4) each(5) each(6)
#endif

HEIGHTS(TILE)

/* A strip of the result, of `columns` <= STRIP: all its rows, in tiles of heights as equal as can be. */
static void NAME(accrue_strip)(const NAME(Accrual) into, ptrdiff_t place, ptrdiff_t ld, const REAL *a, ptrdiff_t a_i,
                               const REAL *strip, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t inner) {
    for (ptrdiff_t tiles = (rows + WIDE_ROWS - 1) / WIDE_ROWS; tiles; tiles--) {
        const ptrdiff_t height = (rows + tiles - 1) / tiles;
        switch (height) { HEIGHTS(CASE) }
        rows -= height, a += height * a_i, place += height * ld;
    }
}

#undef TILE
#undef CASE
#undef HEIGHTS

/* Of g[i, j] = sum over k < inner of a[i, k] b[j, k], for i < rows, j < columns; all dense. */
static void NAME(outer_accrue)(const REAL *a, const REAL *b, REAL *sums, REAL *w, double weight, double rate, int fresh,
                              ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t inner) {
    _Alignas(CACHE_LINE) REAL strip[LONGEST * STRIP];
    NAME(Accrual) into = {sums, w, (REAL)weight, (REAL)rate, fresh, 0};
    into.stream = fresh && inner <= LONGEST && (uintptr_t)sums % CACHE_LINE == 0 &&
                  columns * sizeof(REAL) % CACHE_LINE == 0;
    for (ptrdiff_t j = 0; j < columns; j += STRIP) {
        const ptrdiff_t wide = columns - j < STRIP ? columns - j : STRIP;
        for (ptrdiff_t first = 0; first < inner; first += LONGEST) {
            const ptrdiff_t length = inner - first < LONGEST ? inner - first : LONGEST;
            for (ptrdiff_t k = 0; k < length; k += STRIP)
                for (ptrdiff_t l = 0; l < STRIP; l++)
                    for (ptrdiff_t m = k; m < k + STRIP && m < length; m++)
                        strip[m * STRIP + l] = l < wide ? b[(j + l) * inner + first + m] : 0;
            into.fresh = fresh && first == 0;
            NAME(accrue_strip)(into, j, columns, a + first, inner, strip, rows, wide, length);
        }
    }
    FENCE();
}
