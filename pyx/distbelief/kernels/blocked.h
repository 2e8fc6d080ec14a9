/* Products of dense layers in blocks that stay in the caches, for what a BLAS measures slow at: a large result that is
   written once (the gradient by the weights), and sums down the columns of a large matrix (the one by the inputs).

   Included by blocked.pxd once per float type, after product.h, with REAL and NAME. Blocks lie on the stack. */

#ifndef DISTBELIEF_BLOCKED_H
#define DISTBELIEF_BLOCKED_H

#define BLOCK_ROWS 192  /* of a block of W, a multiple of all tiles' heights */
#define BLOCK_INNER 128 /* rows of W that a block takes part of */
#define STRIP (2 * VECTOR_BYTES / (ptrdiff_t)sizeof(REAL)) /* columns of a result: two registers */
#define LONGEST 512     /* batch that NAME(outer_product) takes */

/* Where it was measured: with the registers of AVX2. Baseline builds lack those that a BLAS finds at run time. */
#if defined(__AVX2__) && !defined(__AVX512F__)
#define BLOCKED_FASTER 1
#else
#define BLOCKED_FASTER 0
#endif

#endif

/* to[k, j] = from[k, j] for j < columns. */
static void NAME(pack)(const REAL *from, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t ld, REAL *to, ptrdiff_t ldto) {
    for (ptrdiff_t k = 0; k < rows; k++)
        for (ptrdiff_t j = 0; j < columns; j++) to[k * ldto + j] = from[k * ld + j];
}

/* c[i, j] = sum over k < inner of w[k, i] b[k, j], for i < rows, j < columns; w's rows are ldw apart, b and c dense.
   Blocks of w side by side follow each other: what is far apart in memory is visited once. */
static void NAME(column_product)(const REAL *w, ptrdiff_t ldw, const REAL *b, REAL *c, ptrdiff_t rows,
                                 ptrdiff_t columns, ptrdiff_t inner) {
    _Alignas(CACHE_LINE) REAL block[BLOCK_INNER * BLOCK_ROWS];
    _Alignas(CACHE_LINE) REAL strip[BLOCK_INNER * STRIP];
    for (ptrdiff_t k = 0; k < inner; k += BLOCK_INNER)
        for (ptrdiff_t i = 0; i < rows; i += BLOCK_ROWS) {
            Product p = {.outer = 1, .a_i = 1, .a_k = BLOCK_ROWS, .b_k = STRIP, .c_i = columns, .add = k > 0};
            p.rows = rows - i < BLOCK_ROWS ? rows - i : BLOCK_ROWS;
            p.inner = inner - k < BLOCK_INNER ? inner - k : BLOCK_INNER;
            NAME(pack)(w + k * ldw + i, p.inner, p.rows, ldw, block, BLOCK_ROWS);
            for (ptrdiff_t j = 0; j < columns; j += STRIP) {
                p.columns = columns - j < STRIP ? columns - j : STRIP;
                NAME(pack)(b + k * columns + j, p.inner, p.columns, columns, strip, STRIP);
                NAME(product)(&p, block, strip, c + i * columns + j);
            }
        }
}

/* c[i, j] = sum over k < inner of a[i, k] b[j, k], for i < rows, j < columns; all dense; inner <= LONGEST. */
static void NAME(outer_product)(const REAL *a, const REAL *b, REAL *c, ptrdiff_t rows, ptrdiff_t columns,
                                ptrdiff_t inner) {
    _Alignas(CACHE_LINE) REAL strip[LONGEST * STRIP];
    Product p = {.rows = rows, .outer = 1, .inner = inner, .a_i = inner, .a_k = 1, .b_k = STRIP, .c_i = columns};
    p.stream = (uintptr_t)c % CACHE_LINE == 0 && columns * sizeof(REAL) % CACHE_LINE == 0;
    for (ptrdiff_t j = 0; j < columns; j += STRIP) {
        p.columns = columns - j < STRIP ? columns - j : STRIP;
        for (ptrdiff_t k = 0; k < inner; k += STRIP)
            for (ptrdiff_t l = 0; l < p.columns; l++)
                for (ptrdiff_t m = k; m < k + STRIP && m < inner; m++) strip[m * STRIP + l] = b[(j + l) * inner + m];
        NAME(product)(&p, a, strip, c + j);
    }
    FENCE();
}
