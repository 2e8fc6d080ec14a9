/* Products of bfloat16 matrices with float32 sums by AMX (amx_tiles.h).

   Every product here is of a small matrix, the activations of a minibatch or the gradient by them, and a large one, W
   or its gradient. The small one is packed into tiles once (`amx_pack`) and read from the second cache. W is read from
   memory once, and called in before it is needed: in forward its tiles are loaded where they lie, for the gradient by
   the inputs a block is packed at a time. The gradient by W is written past the caches. */

#ifndef DISTBELIEF_AMX_H
#define DISTBELIEF_AMX_H

#include "distbelief/kernels/amx_tiles.h"

enum {
    AMX_BATCH = 256,       /* examples that forward and the gradient by the inputs take at a time */
    AMX_RESIDENT = 655360, /* numbers of the small operand that stay in the second cache */
    AMX_PART = 8192,       /* inputs whose products with W are summed in one go, at most; if there are more, */
    AMX_TALL = 256,        /* sums of so many rows wait */
    AMX_DEPTH = 128,       /* outputs, */
    AMX_WIDE = 160,        /* and inputs of a panel of W: it and the next one stay in the second cache, */
    AMX_SUMS = 163840,     /* beside these sums */
    AMX_LONGEST = 1024,    /* batch that the gradient by W takes in one go */
    AMX_NEAR = 8192,       /* numbers of the gradient by the outputs that stay in the first cache, */
    AMX_FAR = 262144,      /* and in the second, if the inputs do not */
};

/* What the small operand is packed for, by the product that it is in. */
enum { AMX_FORWARD, AMX_TO_WEIGHTS, AMX_TO_INPUTS };

/* What becomes of sums that are done, a square or part of one: rows x columns of them, rows ld apart, from row `row`
   and column `column` of the product on. Nobody reads the sums again. */
typedef void (*AmxPut)(void *to, float *sums, ptrdiff_t ld, ptrdiff_t row, ptrdiff_t column, ptrdiff_t rows,
                       ptrdiff_t columns);

#if AMX_COMPILED

/* Rows first..last-1 of the small operand b [rows, n], rows ldb apart, for a product; `first` is the first of a square.
   All of it takes `amx_up(rows) * amx_up(n)` numbers, zeros at the edges, from a line of the cache on. Its squares
   follow each other as the product reads them: those with the same n, but for the gradient by weights those with the
   same rows. */
AMX_CODE static inline void amx_pack(int product, const uint16_t *b, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ldb,
                                     ptrdiff_t first, ptrdiff_t last, uint16_t *to) {
    const ptrdiff_t down = amx_up(rows) / AMX_SIDE, across = amx_up(n) / AMX_SIDE;
    for (ptrdiff_t r = first / AMX_SIDE; r < amx_up(last) / AMX_SIDE; r++)
        for (ptrdiff_t c = 0; c < across; c++) {
            const uint16_t *from = b + AMX_SIDE * (r * ldb + c);
            const ptrdiff_t high = last - AMX_SIDE * r, wide = n - AMX_SIDE * c;
            if (product == AMX_TO_WEIGHTS)
                amx_pack_column_pairs(from, ldb, high, wide, to + AMX_SQUARE * (r * across + c));
            else if (product == AMX_FORWARD)
                amx_pack_pairs(from, ldb, high, wide, to + AMX_SQUARE * (c * down + r));
            else
                amx_pack_columns(from, ldb, high, wide, to + AMX_SQUARE * (c * down + r));
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

/* w [rows, inner] b, w's rows ldw apart; b is packed for AMX_FORWARD, inner x n numbers: columns j..j+n-1 of the
   product, at most AMX_BATCH. Tiles of w are loaded where they lie; while 32 rows are multiplied, the next ones are
   called. */
AMX_CODE static inline void amx_forward(const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, ptrdiff_t rows,
                                        ptrdiff_t j, ptrdiff_t n, ptrdiff_t inner, AmxPut put, void *to) {
    _Alignas(64) uint16_t edge[AMX_SIDE * AMX_PART];
    _Alignas(64) float sums[AMX_TALL * AMX_BATCH];
    const ptrdiff_t stride = amx_up(inner) * AMX_SIDE; /* from the squares of 32 examples to the next ones' */
    const ptrdiff_t part = amx_least(AMX_RESIDENT / amx_up(n), AMX_PART) / AMX_SIDE * AMX_SIDE;
    const ptrdiff_t share = (AMX_SIDE * AMX_SIDE + n - 1) / n; /* lines called at a time */
    amx_configure();
    for (ptrdiff_t i = 0; i < rows; i += AMX_TALL) {
        const ptrdiff_t tall = amx_least(rows - i, AMX_TALL);
        for (ptrdiff_t k = 0; k < inner; k += part) {
            const ptrdiff_t depth = amx_least(inner - k, part), squares = amx_up(depth) / AMX_SIDE;
            const int last = k + part >= inner;
            for (ptrdiff_t side = 0; side < tall; side += AMX_SIDE) {
                const ptrdiff_t high = amx_least(tall - side, AMX_SIDE);
                const uint16_t *large = w + (i + side) * ldw + k;
                AmxCalled called = {large + AMX_SIDE * ldw, ldw - AMX_SIDE * squares, squares, 0,
                                    amx_least(rows - i - side - AMX_SIDE, AMX_SIDE)};
                ptrdiff_t ld = ldw, step = AMX_SIDE;
                if (high < AMX_SIDE || depth % AMX_SIDE) { /* with zeros */
                    for (ptrdiff_t d = 0; d < squares; d++)
                        amx_pack_rows(large + AMX_SIDE * d, ldw, high, depth - AMX_SIDE * d, edge + AMX_SQUARE * d);
                    AMX_BARRIER();
                    large = edge, ld = AMX_SIDE, step = AMX_SQUARE;
                }
                for (ptrdiff_t l = 0; l < n; l += AMX_SIDE) {
                    const uint16_t *small = b + l / AMX_SIDE * stride + AMX_SIDE * k;
                    float *here = part < inner ? sums + side * amx_up(n) + l * AMX_SIDE : sums;
                    if (k)
                        amx_load_sums(here);
                    else
                        amx_zero_sums();
                    for (ptrdiff_t d = 0; d < squares; d++) {
                        amx_multiply(large + step * d, ld, small + AMX_SQUARE * d);
                        amx_call(&called, share);
                    }
                    amx_store_sums(here);
                    if (last) put(to, here, AMX_SIDE, i + side, j + l, high, amx_least(n - l, AMX_SIDE));
                }
            }
        }
    }
    _tile_release();
}

/* w' b, of w [inner, rows], its rows ldw apart; b is packed for AMX_TO_INPUTS, inner x n numbers: as above. While a
   panel of w is multiplied, the next one is called. */
AMX_CODE static inline void amx_to_inputs(const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, ptrdiff_t rows,
                                          ptrdiff_t j, ptrdiff_t n, ptrdiff_t inner, AmxPut put, void *to) {
    _Alignas(64) uint16_t block[AMX_SIDE * AMX_DEPTH];
    _Alignas(64) float sums[AMX_SUMS];
    const ptrdiff_t stride = amx_up(inner) * AMX_SIDE; /* from the squares of 32 examples to the next ones' */
    const ptrdiff_t most = AMX_SUMS / amx_up(n) / AMX_WIDE * AMX_WIDE;
    amx_configure();
    for (ptrdiff_t i = 0; i < rows; i += most) {
        const ptrdiff_t end = amx_least(i + most, rows);
        for (ptrdiff_t k = 0; k < inner; k += AMX_DEPTH)
            for (ptrdiff_t panel = i; panel < end; panel += AMX_WIDE) {
                const ptrdiff_t depth = amx_least(inner - k, AMX_DEPTH), apart = amx_up(depth) * AMX_SIDE;
                const ptrdiff_t wide = amx_least(end - panel, AMX_WIDE);
                const int last = k + AMX_DEPTH >= inner;
                /* The panel beside this one; else below, at the left; else the first of the next sums. */
                const ptrdiff_t beside = panel + AMX_WIDE < end, below = !beside && !last;
                const ptrdiff_t next = beside ? panel + AMX_WIDE : below ? i : end;
                const ptrdiff_t next_k = beside ? k : below ? k + AMX_DEPTH : 0;
                const ptrdiff_t lines = amx_up(amx_least(rows - next, AMX_WIDE)) / AMX_SIDE;
                AmxCalled called = {w + next_k * ldw + next, ldw - lines * AMX_SIDE, lines, 0,
                                    lines > 0 ? amx_least(inner - next_k, AMX_DEPTH) : 0};
                const ptrdiff_t steps = amx_up(wide) / AMX_SIDE * (apart / AMX_SQUARE) * (amx_up(n) / AMX_SIDE);
                const ptrdiff_t share = (called.rows * lines + steps - 1) / steps;
                for (ptrdiff_t side = panel; side < panel + wide; side += AMX_SIDE) {
                    for (ptrdiff_t d = 0; d < depth; d += AMX_SIDE)
                        amx_pack_pairs(w + (k + d) * ldw + side, ldw, depth - d, end - side, block + AMX_SIDE * d);
                    AMX_BARRIER();
                    for (ptrdiff_t l = 0; l < n; l += AMX_SIDE) {
                        const uint16_t *small = b + l / AMX_SIDE * stride + AMX_SIDE * k;
                        float *here = sums + (side - i) * amx_up(n) + l * AMX_SIDE;
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
                        put(to, here, AMX_SIDE, side, j + l, amx_least(end - side, AMX_SIDE),
                            amx_least(n - l, AMX_SIDE));
                    }
                }
            }
    }
    _tile_release();
}

/* w b or w' b, as `product` says, to be put in its place in squares; b [inner, n] is packed for it. */
AMX_CODE static inline void amx_product(int product, const uint16_t *w, ptrdiff_t ldw, const uint16_t *b,
                                        ptrdiff_t rows, ptrdiff_t n, ptrdiff_t inner, AmxPut put, void *to) {
    for (ptrdiff_t j = 0; j < n; j += AMX_BATCH) {
        const uint16_t *small = b + j * amx_up(inner);
        const ptrdiff_t batch = amx_least(n - j, AMX_BATCH);
        if (product == AMX_FORWARD)
            amx_forward(w, ldw, small, rows, j, batch, inner, put, to);
        else
            amx_to_inputs(w, ldw, small, rows, j, batch, inner, put, to);
    }
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

static inline void amx_pack(int product, const uint16_t *b, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ldb, ptrdiff_t first,
                            ptrdiff_t last, uint16_t *to) {}
static inline void amx_product(int product, const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, ptrdiff_t rows,
                               ptrdiff_t n, ptrdiff_t inner, AmxPut put, void *to) {}
static inline void amx_to_weights(const uint16_t *a, ptrdiff_t lda, const uint16_t *b, float *c, ptrdiff_t rows,
                                  ptrdiff_t columns, ptrdiff_t n) {}

#endif
#endif
