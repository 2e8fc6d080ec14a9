/* Products of bfloat16 matrices with float32 sums, by squares (multiply16.h).

   Every product here is of a small matrix, the activations of a minibatch or the gradient by them, and a large one, W
   or its gradient. The small one is packed into squares once (`squares_pack`) and read from the caches. W is read from
   memory once, and called in before it is needed: in forward its squares are loaded where they lie, for the gradient
   by the inputs a block is packed at a time. The gradient by W is written past the caches. */

#ifndef DISTBELIEF_PRODUCT16_H
#define DISTBELIEF_PRODUCT16_H

#include "distbelief/kernels/multiply16.h"

enum {
    PRODUCT_BATCH = 256,       /* examples that forward and the gradient by the inputs take, at most */
    PRODUCT_RESIDENT = 655360, /* numbers of the small operand that stay in the second cache */
    PRODUCT_PART = 8192,       /* inputs whose products with W are summed in one go, at most, by AMX, */
    PRODUCT_SHORT = 512,       /* and by AVX-512: its operands should stay in the first cache; if there are more, */
    PRODUCT_TALL = 256,        /* sums of so many rows wait */
    PRODUCT_DEPTH = 128,       /* outputs, */
    PRODUCT_WIDE = 160,        /* and inputs of a panel of W: it and the next one stay in the second cache, */
    PRODUCT_SUMS = 163840,     /* beside these sums */
    PRODUCT_LONGEST = 1024,    /* batch that the gradient by W takes in one go */
    PRODUCT_NEAR = 8192,       /* numbers of the gradient by the outputs that stay in the first cache, */
    PRODUCT_FAR = 262144,      /* and in the second, if the inputs do not */
};

/* What the small operand is packed for, by the product that it is in. */
enum { PRODUCT_FORWARD, PRODUCT_TO_WEIGHTS, PRODUCT_TO_INPUTS };

/* What becomes of sums that are done, a square or part of one: rows x columns of them, rows ld apart, from row `row`
   and column `column` of the product on. Nobody reads the sums again. */
typedef void (*SquarePut)(void *to, float *sums, ptrdiff_t ld, ptrdiff_t row, ptrdiff_t column, ptrdiff_t rows,
                          ptrdiff_t columns);

#if SQUARE_COMPILED

/* Rows first..last-1 of the small operand b [rows, n], rows ldb apart, for a product; `first` is the first of a square.
   All of it takes `square_up(rows) * square_up(n)` numbers, zeros at the edges, from a line of the cache on. Its
   squares follow each other as the product reads them: those with the same n, but for the gradient by weights those
   with the same rows. */
SQUARE_CODE static inline void squares_pack(int product, const uint16_t *b, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ldb,
                                            ptrdiff_t first, ptrdiff_t last, uint16_t *to) {
    const ptrdiff_t down = square_up(rows) / SQUARE_SIDE, across = square_up(n) / SQUARE_SIDE;
    for (ptrdiff_t r = first / SQUARE_SIDE; r < square_up(last) / SQUARE_SIDE; r++)
        for (ptrdiff_t c = 0; c < across; c++) {
            const uint16_t *from = b + SQUARE_SIDE * (r * ldb + c);
            const ptrdiff_t high = last - SQUARE_SIDE * r, wide = n - SQUARE_SIDE * c;
            if (product == PRODUCT_TO_WEIGHTS)
                square_pack_column_pairs(from, ldb, high, wide, to + SQUARE_SIZE * (r * across + c));
            else if (product == PRODUCT_FORWARD)
                square_pack_pairs(from, ldb, high, wide, to + SQUARE_SIZE * (c * down + r));
            else
                square_pack_columns(from, ldb, high, wide, to + SQUARE_SIZE * (c * down + r));
        }
}

/* Meanwhile: numbers that are called into the second cache line by line, `lines` of each row, `share` a bit. */
typedef struct {
    const uint16_t *at;
    ptrdiff_t step, lines, line, rows, share;
} Called;

SQUARE_INLINE void product_call(void *what, int bits) {
    Called *called = (Called *)what;
    for (ptrdiff_t l = bits * called->share; l > 0 && called->rows > 0; l--) {
        _mm_prefetch((const char *)called->at, _MM_HINT_T1);
        called->at += SQUARE_SIDE;
        if (++called->line == called->lines) called->line = 0, called->rows--, called->at += called->step;
    }
}

/* w [rows, inner] b, w's rows ldw apart; b is packed for PRODUCT_FORWARD, inner x n numbers. Squares of w are loaded
   where they lie; while 32 rows are multiplied, the next ones are called. */
SQUARE_INLINE void product_forward(int way, const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, ptrdiff_t rows,
                                   ptrdiff_t n, ptrdiff_t inner, SquarePut put, void *to) {
    _Alignas(64) uint16_t edge[SQUARE_SIDE * PRODUCT_PART];
    _Alignas(64) float sums[PRODUCT_TALL * PRODUCT_BATCH];
    const ptrdiff_t stride = square_up(inner) * SQUARE_SIDE; /* from the squares of 32 examples to the next ones' */
    const ptrdiff_t most = square_least(PRODUCT_RESIDENT / square_up(n), PRODUCT_PART) / SQUARE_SIDE * SQUARE_SIDE;
    const ptrdiff_t part = way == BY_AMX ? most : PRODUCT_SHORT;
    const ptrdiff_t share = (SQUARE_SIDE * SQUARE_SIDE + 4 * n - 1) / (4 * n);
    multiply16_begin(way);
    for (ptrdiff_t i = 0; i < rows; i += PRODUCT_TALL) {
        const ptrdiff_t tall = square_least(rows - i, PRODUCT_TALL);
        for (ptrdiff_t k = 0; k < inner; k += part) {
            const ptrdiff_t depth = square_least(inner - k, part), squares = square_up(depth) / SQUARE_SIDE;
            const int last = k + part >= inner;
            for (ptrdiff_t side = 0; side < tall; side += SQUARE_SIDE) {
                const ptrdiff_t high = square_least(tall - side, SQUARE_SIDE);
                const uint16_t *large = w + (i + side) * ldw + k;
                const ptrdiff_t below = square_least(rows - i - side - SQUARE_SIDE, SQUARE_SIDE);
                Called called = {large + SQUARE_SIDE * ldw, ldw - SQUARE_SIDE * squares, squares, 0, below, share};
                ptrdiff_t ld = ldw, step = SQUARE_SIDE;
                if (high < SQUARE_SIDE || depth % SQUARE_SIDE) { /* with zeros */
                    for (ptrdiff_t d = 0; d < squares; d++)
                        square_pack_rows(large + SQUARE_SIDE * d, ldw, high, depth - SQUARE_SIDE * d,
                                         edge + SQUARE_SIZE * d);
                    large = edge, ld = SQUARE_SIDE, step = SQUARE_SIZE;
                }
                for (ptrdiff_t l = 0; l < n; l += SQUARE_SIDE) {
                    const uint16_t *small = b + l / SQUARE_SIDE * stride + SQUARE_SIDE * k;
                    float *here = part < inner ? sums + side * square_up(n) + l * SQUARE_SIDE : sums;
                    multiply16(way, large, ld, step, small, squares, k > 0, here, product_call, &called);
                    if (last) put(to, here, SQUARE_SIDE, i + side, l, high, square_least(n - l, SQUARE_SIDE));
                }
            }
        }
    }
    multiply16_end(way);
}

/* w' b, of w [inner, rows], its rows ldw apart; b is packed for PRODUCT_TO_INPUTS, inner x n numbers: as above. While a
   panel of w is multiplied, the next one is called. */
SQUARE_INLINE void product_to_inputs(int way, const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, ptrdiff_t rows,
                                     ptrdiff_t n, ptrdiff_t inner, SquarePut put, void *to) {
    _Alignas(64) uint16_t block[SQUARE_SIDE * PRODUCT_DEPTH];
    _Alignas(64) float sums[PRODUCT_SUMS];
    const ptrdiff_t stride = square_up(inner) * SQUARE_SIDE; /* from the squares of 32 examples to the next ones' */
    const ptrdiff_t most = PRODUCT_SUMS / square_up(n) / PRODUCT_WIDE * PRODUCT_WIDE;
    multiply16_begin(way);
    for (ptrdiff_t i = 0; i < rows; i += most) {
        const ptrdiff_t end = square_least(i + most, rows);
        for (ptrdiff_t k = 0; k < inner; k += PRODUCT_DEPTH)
            for (ptrdiff_t panel = i; panel < end; panel += PRODUCT_WIDE) {
                const ptrdiff_t depth = square_least(inner - k, PRODUCT_DEPTH);
                const ptrdiff_t squares = square_up(depth) / SQUARE_SIDE;
                const ptrdiff_t wide = square_least(end - panel, PRODUCT_WIDE);
                const int last = k + PRODUCT_DEPTH >= inner;
                /* The panel beside this one; else below, at the left; else the first of the next sums. */
                const ptrdiff_t beside = panel + PRODUCT_WIDE < end, below = !beside && !last;
                const ptrdiff_t next = beside ? panel + PRODUCT_WIDE : below ? i : end;
                const ptrdiff_t next_k = beside ? k : below ? k + PRODUCT_DEPTH : 0;
                const ptrdiff_t lines = square_up(square_least(rows - next, PRODUCT_WIDE)) / SQUARE_SIDE;
                const ptrdiff_t high = lines > 0 ? square_least(inner - next_k, PRODUCT_DEPTH) : 0;
                const ptrdiff_t bits = 4 * square_up(wide) / SQUARE_SIDE * squares * (square_up(n) / SQUARE_SIDE);
                Called called = {w + next_k * ldw + next, ldw - lines * SQUARE_SIDE, lines, 0, high,
                                 (high * lines + bits - 1) / bits};
                for (ptrdiff_t side = panel; side < panel + wide; side += SQUARE_SIDE) {
                    for (ptrdiff_t d = 0; d < depth; d += SQUARE_SIDE)
                        square_pack_pairs(w + (k + d) * ldw + side, ldw, depth - d, end - side,
                                          block + SQUARE_SIDE * d);
                    for (ptrdiff_t l = 0; l < n; l += SQUARE_SIDE) {
                        const uint16_t *small = b + l / SQUARE_SIDE * stride + SQUARE_SIDE * k;
                        float *here = sums + (side - i) * square_up(n) + l * SQUARE_SIDE;
                        multiply16(way, small, SQUARE_SIDE, SQUARE_SIZE, block, squares, k > 0, here, product_call,
                                   &called);
                        if (!last) continue;
                        square_transpose_sums(here);
                        put(to, here, SQUARE_SIDE, side, l, square_least(end - side, SQUARE_SIDE),
                            square_least(n - l, SQUARE_SIDE));
                    }
                }
            }
    }
    multiply16_end(way);
}

SQUARE_INLINE void product_by(int way, int product, const uint16_t *w, ptrdiff_t ldw, const uint16_t *b, ptrdiff_t rows,
                              ptrdiff_t n, ptrdiff_t inner, SquarePut put, void *to) {
    if (product == PRODUCT_FORWARD)
        product_forward(way, w, ldw, b, rows, n, inner, put, to);
    else
        product_to_inputs(way, w, ldw, b, rows, n, inner, put, to);
}

/* w b or w' b, as `product` says, to be put in its place in squares; b [inner, n] is packed for it, n at most
   PRODUCT_BATCH. */
SQUARE_CODE static inline void squares_product(int way, int product, const uint16_t *w, ptrdiff_t ldw,
                                               const uint16_t *b, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t inner,
                                               SquarePut put, void *to) {
    if (way == BY_AMX)
        product_by(BY_AMX, product, w, ldw, b, rows, n, inner, put, to);
    else
        product_by(BY_AVX512, product, w, ldw, b, rows, n, inner, put, to);
}

/* Meanwhile: a square of sums is written to its place row by row, `share` rows a bit; and as many rows are called of
   the place of the one that is being computed. */
typedef struct {
    const float *sums;
    ptrdiff_t row, rows, share;
    SquarePlace place, next;
} Written;

SQUARE_INLINE void product_write(void *what, int bits) {
    Written *written = (Written *)what;
    const ptrdiff_t end = square_least(written->row + bits * written->share, written->rows);
    square_call(written->row, end, &written->next);
    square_write(written->sums, written->row, end, &written->place);
    written->row = end;
}

SQUARE_INLINE void product_to_weights(int way, const uint16_t *a, ptrdiff_t lda, const uint16_t *b,
                                      const SquarePlace *to, ptrdiff_t rows, ptrdiff_t n) {
    _Alignas(64) uint16_t panel[PRODUCT_FAR];
    _Alignas(64) float sums[2][SQUARE_SIZE];
    const ptrdiff_t stride = square_up(n) * SQUARE_SIDE; /* from the squares of 32 columns to the next ones' */
    const ptrdiff_t columns = to->columns;
    const int stream = n <= PRODUCT_LONGEST && (uintptr_t)to->c % 64 == 0 && columns % 16 == 0;
    const ptrdiff_t room = columns * square_up(n) < PRODUCT_RESIDENT ? PRODUCT_NEAR : PRODUCT_FAR;
    multiply16_begin(way);
    for (ptrdiff_t k = 0; k < n; k += PRODUCT_LONGEST) {
        const ptrdiff_t depth = square_least(n - k, PRODUCT_LONGEST), squares = square_up(depth) / SQUARE_SIDE;
        const ptrdiff_t apart = squares * SQUARE_SIZE;
        const ptrdiff_t most = room < apart ? SQUARE_SIDE : room / apart * SQUARE_SIDE;
        const ptrdiff_t share = (SQUARE_SIDE + 4 * squares - 1) / (4 * squares);
        const int how = k || to->how == SQUARE_ADD ? SQUARE_ADD : stream ? SQUARE_STREAM : SQUARE_STORE;
        for (ptrdiff_t i = 0; i < rows; i += most) {
            const ptrdiff_t tall = square_least(rows - i, most);
            for (ptrdiff_t side = 0; side < tall; side += SQUARE_SIDE)
                for (ptrdiff_t d = 0; d < depth; d += SQUARE_SIDE)
                    square_pack_rows(a + (i + side) * lda + k + d, lda, tall - side, depth - d,
                                     panel + side / SQUARE_SIDE * apart + SQUARE_SIDE * d);
            Written before = {0}; /* the square that waits in the other sums: at first there is none */
            ptrdiff_t now = 0;
            for (ptrdiff_t j = 0; j < columns; j += SQUARE_SIDE)
                for (ptrdiff_t side = 0; side < tall; side += SQUARE_SIDE, now = !now) {
                    const uint16_t *large = panel + side / SQUARE_SIDE * apart;
                    const uint16_t *small = b + j / SQUARE_SIDE * stride + SQUARE_SIDE * k;
                    const ptrdiff_t at = (i + side) * columns + j;
                    SquarePlace place = *to;
                    place.c += at, place.columns -= j, place.how = how;
                    if (to->w) place.w += at;
                    if (to->w16) place.w16 += at;
                    before.next = place;
                    multiply16(way, large, SQUARE_SIDE, SQUARE_SIZE, small, squares, 0, sums[now], product_write,
                               &before);
                    before = (Written){sums[now], 0, square_least(tall - side, SQUARE_SIDE), share, place, place};
                }
            square_write(before.sums, 0, before.rows, &before.place);
        }
    }
    multiply16_end(way);
    _mm_sfence();
}

/* g [rows, columns] = a [rows, n] b', a's rows lda apart, all of it to a place of whole rows: how is SQUARE_ADD or
   SQUARE_STORE. b is packed for PRODUCT_TO_WEIGHTS: columns x n numbers. While a square of g is computed, the one
   before it is written; past the caches, if nothing is added to. */
SQUARE_CODE static inline void squares_to_weights(int way, const uint16_t *a, ptrdiff_t lda, const uint16_t *b,
                                                  const SquarePlace *to, ptrdiff_t rows, ptrdiff_t n) {
    if (way == BY_AMX)
        product_to_weights(BY_AMX, a, lda, b, to, rows, n);
    else
        product_to_weights(BY_AVX512, a, lda, b, to, rows, n);
}

#else

static inline void squares_pack(int product, const uint16_t *b, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t ldb,
                                ptrdiff_t first, ptrdiff_t last, uint16_t *to) {}
static inline void squares_product(int way, int product, const uint16_t *w, ptrdiff_t ldw, const uint16_t *b,
                                   ptrdiff_t rows, ptrdiff_t n, ptrdiff_t inner, SquarePut put, void *to) {}
static inline void squares_to_weights(int way, const uint16_t *a, ptrdiff_t lda, const uint16_t *b,
                                      const SquarePlace *to, ptrdiff_t rows, ptrdiff_t n) {}

#endif
#endif
