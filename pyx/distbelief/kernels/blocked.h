/* Products of dense layers in blocks that stay in the caches, for what a BLAS measures slow at: a large matrix times a
   small one (forward), a large result that is written once (the gradient by the weights), and sums down the columns of
   a large matrix (the one by the inputs).

   Included by blocked.pxd once per float type, after product.h, with REAL and NAME. Blocks lie on the stack. */

#ifndef DISTBELIEF_BLOCKED_H
#define DISTBELIEF_BLOCKED_H

#define ROW_INNER 256   /* numbers of W that a block sums over, where they lie in a row, */
#define COLUMN_INNER 64 /* and in a column */
#define BLOCK_ROWS 192  /* of a block of W, a multiple of all tiles' heights */
#define SUMS (655360 / (ptrdiff_t)sizeof(REAL)) /* that stay in the second cache */
#define STRIP (2 * VECTOR_BYTES / (ptrdiff_t)sizeof(REAL)) /* columns of a result: two registers */
#define NARROW 256      /* columns of a result that NAME(row_product) and NAME(column_product) take at a time, */
#define LONGEST 512     /* and batch that NAME(outer_product) does */

/* Whether the registers are those that a BLAS may not know how to use yet (see blas.use_sgemm). */
#if defined(__AVX512F__)
#define WIDEST 1
#else
#define WIDEST 0
#endif

/* Where it was measured that they are faster than what: with the registers of AVX2, and of AVX-512. Baseline builds
   lack those that a BLAS finds at run time. */
#if defined(__AVX512F__)
#define FAST_COLUMNS 1
#define FAST_OUTER(openblas) 1
#define FAST_ROWS(openblas) ((openblas) || !__builtin_cpu_is("intel")) /* MKL is faster on Intel's only */
#elif defined(__AVX2__)
#define FAST_COLUMNS 1
#define FAST_OUTER(openblas) (!(openblas))
#define FAST_ROWS(openblas) 0
#else
#define FAST_COLUMNS 0
#define FAST_OUTER(openblas) 0
#define FAST_ROWS(openblas) 0
#endif

#endif

/* to[k, j] = from[k, j] for j < columns. */
static void NAME(pack)(const REAL *from, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t ld, REAL *to, ptrdiff_t ldto) {
    for (ptrdiff_t k = 0; k < rows; k++)
        for (ptrdiff_t j = 0; j < columns; j++) to[k * ldto + j] = from[k * ld + j];
}

/* c[i, j] = sum over k < inner of w[i, k] b[k, j], for i < rows, j < columns <= NARROW; w dense, the rows of b and c ld
   apart. */
static void NAME(row_block)(const REAL *w, const REAL *b, REAL *c, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t inner,
                            ptrdiff_t ld) {
    _Alignas(CACHE_LINE) REAL strips[ROW_INNER * NARROW];
    for (ptrdiff_t k = 0; k < inner; k += ROW_INNER) {
        Product p = {.outer = 1, .a_i = inner, .a_k = 1, .b_k = STRIP, .c_i = ld, .add = k > 0};
        p.inner = inner - k < ROW_INNER ? inner - k : ROW_INNER;
        for (ptrdiff_t j = 0; j < columns; j += STRIP)
            NAME(pack)(b + k * ld + j, p.inner, columns - j < STRIP ? columns - j : STRIP, ld, strips + j * ROW_INNER,
                       STRIP);
        for (ptrdiff_t i = 0; i < rows; i += BLOCK_ROWS) {
            /* From a block of w to the next one: below, or else at the top on the right. */
            const ptrdiff_t right = k + ROW_INNER < inner ? ROW_INNER - i * inner : 0;
            const ptrdiff_t next = i + BLOCK_ROWS < rows ? BLOCK_ROWS * inner : right;
            for (ptrdiff_t j = 0; j < columns; j += STRIP) {
                p.rows = rows - i < BLOCK_ROWS ? rows - i : BLOCK_ROWS;
                p.columns = columns - j < STRIP ? columns - j : STRIP;
                p.a_ahead = j ? 0 : next;
                NAME(product)(&p, w + i * inner + k, strips + j * ROW_INNER, c + i * ld + j);
            }
        }
    }
}

/* c[i, j] = sum over k < inner of w[i, k] b[k, j], for i < rows, j < columns; all dense. */
static void NAME(row_product)(const REAL *w, const REAL *b, REAL *c, ptrdiff_t rows, ptrdiff_t columns,
                              ptrdiff_t inner) {
    for (ptrdiff_t j = 0; j < columns; j += NARROW)
        NAME(row_block)(w, b + j, c + j, rows, columns - j < NARROW ? columns - j : NARROW, inner, columns);
}

/* c[i, j] = sum over k < inner of w[k, i] b[k, j], for i < rows, j < columns <= NARROW; w's rows are ldw apart, those
   of b and c ld. Computed is the transpose, so that vectors of w are loaded where they lie, a strip of its columns at a
   time, while the next strip is called: no hardware sees a pattern in lines so far apart. */
static void NAME(column_block)(const REAL *w, ptrdiff_t ldw, const REAL *b, REAL *c, ptrdiff_t rows,
                               ptrdiff_t columns, ptrdiff_t inner, ptrdiff_t ld) {
    _Alignas(CACHE_LINE) REAL sums[SUMS];
    const ptrdiff_t most = SUMS / columns / STRIP * STRIP;
    for (ptrdiff_t i = 0; i < rows; i += most) {
        const ptrdiff_t wide = rows - i < most ? rows - i : most;
        for (ptrdiff_t k = 0; k < inner; k += COLUMN_INNER) {
            Product p = {.rows = columns, .outer = 1, .a_i = 1, .a_k = ld, .b_k = ldw, .c_i = STRIP, .add = k > 0};
            p.inner = inner - k < COLUMN_INNER ? inner - k : COLUMN_INNER;
            for (ptrdiff_t s = 0; s < wide; s += STRIP) {
                const int beside = s + STRIP < wide;
                const int below = k + 2 * COLUMN_INNER <= inner;
                p.b_ahead = beside ? STRIP : below ? COLUMN_INNER * ldw - s : 0;
                p.columns = wide - s < STRIP ? wide - s : STRIP;
                NAME(product)(&p, b + k * ld, w + k * ldw + i + s, sums + s * columns);
            }
        }
        for (ptrdiff_t s = 0; s < wide; s++)
            for (ptrdiff_t j = 0; j < columns; j++)
                c[(i + s) * ld + j] = sums[s / STRIP * STRIP * columns + j * STRIP + s % STRIP];
    }
}

/* c[i, j] = sum over k < inner of w[k, i] b[k, j], for i < rows, j < columns; w's rows are ldw apart, b and c dense. */
static void NAME(column_product)(const REAL *w, ptrdiff_t ldw, const REAL *b, REAL *c, ptrdiff_t rows,
                                 ptrdiff_t columns, ptrdiff_t inner) {
    for (ptrdiff_t j = 0; j < columns; j += NARROW)
        NAME(column_block)(w, ldw, b + j, c + j, rows, columns - j < NARROW ? columns - j : NARROW, inner, columns);
}

/* c[i, j] = sum over k < inner of a[i, k] b[j, k], for i < rows, j < columns; all dense. */
static void NAME(outer_product)(const REAL *a, const REAL *b, REAL *c, ptrdiff_t rows, ptrdiff_t columns,
                                ptrdiff_t inner) {
    _Alignas(CACHE_LINE) REAL strip[LONGEST * STRIP];
    const int whole_lines = (uintptr_t)c % CACHE_LINE == 0 && columns * sizeof(REAL) % CACHE_LINE == 0;
    for (ptrdiff_t j = 0; j < columns; j += STRIP)
        for (ptrdiff_t first = 0; first < inner; first += LONGEST) {
            const ptrdiff_t last = inner - first < LONGEST ? inner : first + LONGEST;
            Product p = {.rows = rows, .outer = 1, .inner = last - first, .a_i = inner, .a_k = 1, .b_k = STRIP};
            p.columns = columns - j < STRIP ? columns - j : STRIP;
            p.c_i = columns, p.add = first > 0, p.stream = whole_lines && inner <= LONGEST;
            for (ptrdiff_t k = first; k < last; k += STRIP)
                for (ptrdiff_t l = 0; l < p.columns; l++)
                    for (ptrdiff_t m = k; m < k + STRIP && m < last; m++)
                        strip[(m - first) * STRIP + l] = b[(j + l) * inner + m];
            NAME(product)(&p, a + first, strip, c + j);
        }
    FENCE();
}
