/* Passes over long vectors by registers of 16 numbers, where the compiler may use AVX-512: written out, as divisions,
   and changes between float32 and bfloat16, take longer than the memory does in what compilers make of plain loops.

   What becomes of a number does not depend on where it stands: beginnings and ends that fill no register go the same
   way. Each pass returns whether it could: plain loops are for those that cannot. */

#ifndef DISTBELIEF_LANES_H
#define DISTBELIEF_LANES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#define LANES_INLINE static inline __attribute__((always_inline))

enum {
    LANES = 32,        /* numbers in a turn: a line of bfloat16, two of float32 */
    LANES_AHEAD = 1024, /* a turn asks for what it needs so many numbers later: see ahead.pxd */
    LANES_AHEAD_NARROW = 3072, /* where bfloat16 is all that is read */
};

typedef uint32_t lanes_mask; /* which numbers of a turn there are */

#define LANES_ALL (~(lanes_mask)0)

/* Of a turn, which is registers 0 and 1. */
#define LANES_HALF(mask, r) ((__mmask16)((mask) >> (16 * (r))))

LANES_INLINE lanes_mask lanes_first(ptrdiff_t numbers) { return ((lanes_mask)1 << numbers) - 1; }

/* Whether numbers of `width` bytes lie at multiples of it: else none of them begins a line. */
LANES_INLINE int lanes_aligned(const void *place, size_t width) { return (uintptr_t)place % width == 0; }

/* Of `size` numbers of `width` bytes, those before the first that lies at a multiple of 64 bytes. */
LANES_INLINE ptrdiff_t lanes_head(const void *place, size_t width, ptrdiff_t size) {
    ptrdiff_t head = (ptrdiff_t)(-(uintptr_t)place % 64 / width);
    return head < size ? head : size;
}

LANES_INLINE __m512 lanes_load(const float *from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }

LANES_INLINE __m512 lanes_widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

LANES_INLINE __m512 lanes_load_narrow(const unsigned short *from, __mmask16 mask) {
    return lanes_widen(_mm256_maskz_loadu_epi16(mask, from));
}

/* 1 / sqrt(x) for a normal x, or 0 for an infinite one: an estimate, and a step of Newton's, so good to 2 ulp. */
LANES_INLINE __m512 lanes_inverse_root(__m512 x) {
    __m512 y = _mm512_rsqrt14_ps(x), half = _mm512_mul_ps(_mm512_set1_ps(0.5f), x);
    __m512 error = _mm512_fnmadd_ps(_mm512_mul_ps(half, y), y, _mm512_set1_ps(0.5f)); /* NaN, if x is infinite */
    return _mm512_mask_fmadd_ps(y, _mm512_cmp_ps_mask(x, _mm512_set1_ps(__builtin_inff()), _CMP_NEQ_UQ), error, y);
}

#ifdef __AVX512BF16__

/* Rounds a turn; `past`: past the caches, to a multiple of 64 bytes. What is below all normal numbers becomes 0. */
LANES_INLINE __m512i lanes_round(const __m512 *values) {
    return (__m512i)_mm512_cvtne2ps_pbh(values[1], values[0]);
}

LANES_INLINE void lanes_put(unsigned short *to, __m512i bits, lanes_mask mask) {
    if (mask == LANES_ALL)
        _mm512_stream_si512((void *)to, bits);
    else
        _mm512_mask_storeu_epi16(to, mask, bits);
}

#endif

/* A vector of n numbers as one turn after the other, `turn(first, mask)`, of which all but the first and the last are
   whole. `head`: how many numbers the first one has. */
#define LANES_TURNS(head, n, turn)                                                                                     \
    do {                                                                                                               \
        ptrdiff_t lanes_i = (head);                                                                                    \
        if (lanes_i)                                                                                                   \
            turn(0, lanes_first(lanes_i));                                                                             \
        for (; lanes_i + LANES <= (n); lanes_i += LANES)                                                               \
            turn(lanes_i, LANES_ALL);                                                                                  \
        if (lanes_i < (n))                                                                                             \
            turn(lanes_i, lanes_first((n)-lanes_i));                                                                   \
    } while (0)

LANES_INLINE void lanes_adagrad_turn(float *parameters, const void *gradient, int narrow, float *squares, float rate,
                                     float floor, unsigned short *shadow, ptrdiff_t i, lanes_mask mask) {
    __m512 updated[2];
    for (int line = 0; line < LANES; line += 16) {
        __builtin_prefetch(parameters + i + LANES_AHEAD + line, 1);
        __builtin_prefetch(squares + i + LANES_AHEAD + line, 1);
    }
    for (int r = 0; r < 2; r++) {
        ptrdiff_t k = i + 16 * r;
        __mmask16 half = LANES_HALF(mask, r);
        __m512 x = narrow ? lanes_load_narrow((const unsigned short *)gradient + k, half)
                          : lanes_load((const float *)gradient + k, half);
        __m512 s = _mm512_fmadd_ps(x, x, lanes_load(squares + k, half));
        _mm512_mask_storeu_ps(squares + k, half, s);
        s = lanes_inverse_root(_mm512_max_ps(s, _mm512_set1_ps(floor)));
        s = _mm512_mul_ps(_mm512_set1_ps(rate), _mm512_mul_ps(x, s)); /* the inner product is at most 1 */
        updated[r] = _mm512_sub_ps(lanes_load(parameters + k, half), s);
        _mm512_mask_storeu_ps(parameters + k, half, updated[r]);
    }
#ifdef __AVX512BF16__
    if (shadow)
        lanes_put(shadow + i, lanes_round(updated), mask);
#endif
}

LANES_INLINE void lanes_adagrad_as(float *parameters, const void *gradient, int narrow, float *squares, float rate,
                                   float floor, unsigned short *shadow, ptrdiff_t size) {
#define ADAGRAD_TURN(i, mask)                                                                                          \
    lanes_adagrad_turn(parameters, gradient, narrow, squares, rate, floor, shadow, i, mask)
    LANES_TURNS(shadow ? lanes_head(shadow, sizeof(*shadow), size) : 0, size, ADAGRAD_TURN);
#undef ADAGRAD_TURN
}

/* See update.adagrad; `narrow`: the gradient is bfloat16, not float. `shadow`: NULL, or where the parameters go in
   bfloat16 too, past the caches (stream.pxd: `streamed`). */
static inline int lanes_adagrad(float *parameters, const void *gradient, int narrow, float *squares, float rate,
                                float floor, unsigned short *shadow, ptrdiff_t size) {
#ifndef __AVX512BF16__
    if (shadow)
        return 0;
#endif
    if (shadow && !lanes_aligned(shadow, sizeof(*shadow)))
        return 0;
    /* Loops of their own, as no case is to pay for another. */
    if (narrow && shadow)
        lanes_adagrad_as(parameters, gradient, 1, squares, rate, floor, shadow, size);
    else if (narrow)
        lanes_adagrad_as(parameters, gradient, 1, squares, rate, floor, NULL, size);
    else if (shadow)
        lanes_adagrad_as(parameters, gradient, 0, squares, rate, floor, shadow, size);
    else
        lanes_adagrad_as(parameters, gradient, 0, squares, rate, floor, NULL, size);
    return 1;
}

LANES_INLINE void lanes_renew_turn(const void *values, int narrow, const float *gradient, float rate, float *out,
                                   ptrdiff_t i, lanes_mask mask) {
    if (narrow) /* not to be kept: what others have written in the caches had to make room */
        __builtin_prefetch((const unsigned short *)values + i + LANES_AHEAD_NARROW, 0, 0);
    for (int r = 0; r < 2; r++) {
        ptrdiff_t k = i + 16 * r;
        __mmask16 half = LANES_HALF(mask, r);
        __m512 x = narrow ? lanes_load_narrow((const unsigned short *)values + k, half)
                          : lanes_load((const float *)values + k, half);
        if (gradient && !narrow) /* one stream alone is found without it, a twelfth sooner */
            __builtin_prefetch((const float *)values + k + LANES_AHEAD, 0);
        if (gradient) {
            __builtin_prefetch(gradient + k + LANES_AHEAD, 0);
            x = _mm512_fnmadd_ps(_mm512_set1_ps(rate), lanes_load(gradient + k, half), x);
        }
        if (mask == LANES_ALL)
            _mm512_stream_ps(out + k, x);
        else
            _mm512_mask_storeu_ps(out + k, half, x);
    }
}

LANES_INLINE void lanes_renew_as(const void *values, int narrow, const float *gradient, float rate, float *out,
                                 ptrdiff_t size) {
#define RENEW_TURN(i, mask) lanes_renew_turn(values, narrow, gradient, rate, out, i, mask)
    LANES_TURNS(lanes_head(out, sizeof(*out), size), size, RENEW_TURN);
#undef RENEW_TURN
}

/* See renewal.renew; `narrow`: the values are bfloat16, not float. `gradient`: NULL, or what is to be taken off. `out`
   is written past the caches. */
static inline int lanes_renew(const void *values, int narrow, const float *gradient, float rate, float *out,
                              ptrdiff_t size) {
    if (!lanes_aligned(out, sizeof(*out)))
        return 0;
    if (narrow && gradient)
        lanes_renew_as(values, 1, gradient, rate, out, size);
    else if (narrow)
        lanes_renew_as(values, 1, NULL, rate, out, size);
    else if (gradient)
        lanes_renew_as(values, 0, gradient, rate, out, size);
    else
        lanes_renew_as(values, 0, NULL, rate, out, size);
    return 1;
}

#ifdef __AVX512BF16__

#define LANES_CARRY

LANES_INLINE void lanes_carry_turn(const float *values, unsigned short *carry, float largest, unsigned short *out,
                                   ptrdiff_t i, lanes_mask mask) {
    __m512 sums[2], rests[2];
    __builtin_prefetch(values + i + LANES_AHEAD, 0);
    __builtin_prefetch(values + i + LANES_AHEAD + 16, 0);
    __builtin_prefetch(carry + i + LANES_AHEAD, 1);
    for (int r = 0; r < 2; r++) {
        __mmask16 half = LANES_HALF(mask, r);
        sums[r] = lanes_load_narrow(carry + i + 16 * r, half);
        sums[r] = _mm512_add_ps(lanes_load(values + i + 16 * r, half), sums[r]);
        sums[r] = _mm512_min_ps(_mm512_set1_ps(largest), sums[r]); /* in this order a NaN stays one */
        sums[r] = _mm512_max_ps(_mm512_set1_ps(-largest), sums[r]);
    }
    __m512i bits = lanes_round(sums);
    lanes_put(out + i, bits, mask);
    for (int r = 0; r < 2; r++) {
        __m512 sent = lanes_widen(r ? _mm512_extracti64x4_epi64(bits, 1) : _mm512_castsi512_si256(bits));
        rests[r] = _mm512_sub_ps(sums[r], sent);
        rests[r] = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(rests[r], rests[r], _CMP_ORD_Q), rests[r]);
    }
    if (mask == LANES_ALL)
        _mm512_storeu_si512(carry + i, lanes_round(rests));
    else
        _mm512_mask_storeu_epi16(carry + i, mask, lanes_round(rests));
}

/* See bfloat16.narrow_carrying. `out` is written past the caches. */
static inline int lanes_carry(const float *values, unsigned short *carry, float largest, ptrdiff_t size,
                              unsigned short *out) {
    if (!lanes_aligned(out, sizeof(*out)))
        return 0;
#define CARRY_TURN(i, mask) lanes_carry_turn(values, carry, largest, out, i, mask)
    LANES_TURNS(lanes_head(out, sizeof(*out), size), size, CARRY_TURN);
#undef CARRY_TURN
    return 1;
}

#endif

#else

static inline int lanes_adagrad(float *parameters, const void *gradient, int narrow, float *squares, float rate,
                                float floor, unsigned short *shadow, ptrdiff_t size) {
    return 0;
}

static inline int lanes_renew(const void *values, int narrow, const float *gradient, float rate, float *out,
                              ptrdiff_t size) {
    return 0;
}

#endif

#ifndef LANES_CARRY

static inline int lanes_carry(const float *values, unsigned short *carry, float largest, ptrdiff_t size,
                              unsigned short *out) {
    return 0;
}

#endif

#endif
