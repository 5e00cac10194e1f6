/* Vectors of floats, as the compiler has them for the instruction set, and the functions of an encoder on them.
 *
 * Sums run in LANES lanes whatever the width of a vector is, and nothing is fused but by `fused`: the results of what does
 * not use it are the same bits for every instruction set. */
#ifndef SPARSEQ_VECTOR_H
#define SPARSEQ_VECTOR_H

#if defined(__GNUC__) && !defined(__clang__)
/* With it GCC (12 to 14) gives a tile's sums two registers each, and keeps half of them in memory. */
#pragma GCC optimize("no-tree-coalesce-vars")
#if !defined(SPARSEQ_EMULATED)
/* What adds to a sum is written in assembly: GCC copies sums that go through the intrinsics, at up to half the speed. */
#define IN_PLACE
#endif
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define LANES 16
#define PARTS (LANES / WIDTH)

typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef float unaligned_floats __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

typedef int32_t unaligned_int __attribute__((aligned(1), may_alias));

/* Four floats, to be transposed. */
typedef float four __attribute__((vector_size(16)));
typedef float unaligned_four __attribute__((vector_size(16), aligned(4), may_alias));
#if defined(__clang__) || __GNUC__ >= 12
#define shuffle_four(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d)
#else
#define shuffle_four(x, y, a, b, c, d) __builtin_shuffle(x, y, (int32_t __attribute__((vector_size(16)))){a, b, c, d})
#endif

INLINE four load_four(const float *x) { return *(const unaligned_four *)x; }
INLINE void store_four(float *to, four x) { *(unaligned_four *)to = x; }


/* to [4][to_stride] = x [4][stride] transposed. */
INLINE void transpose_four(const float *x, int64_t stride, float *to, int64_t to_stride)
{
    four a = load_four(x), b = load_four(x + stride), c = load_four(x + 2 * stride), d = load_four(x + 3 * stride);
    four ac = shuffle_four(a, c, 0, 4, 1, 5), AC = shuffle_four(a, c, 2, 6, 3, 7);
    four bd = shuffle_four(b, d, 0, 4, 1, 5), BD = shuffle_four(b, d, 2, 6, 3, 7);
    store_four(to, shuffle_four(ac, bd, 0, 4, 1, 5));
    store_four(to + to_stride, shuffle_four(ac, bd, 2, 6, 3, 7));
    store_four(to + 2 * to_stride, shuffle_four(AC, BD, 0, 4, 1, 5));
    store_four(to + 3 * to_stride, shuffle_four(AC, BD, 2, 6, 3, 7));
}

INLINE floats load(const float *x) { return *(const unaligned_floats *)x; }
INLINE void store(float *to, floats x) { *(unaligned_floats *)to = x; }
INLINE floats all(float x)
{
#if WIDTH == 16
    return (floats)_mm512_set1_ps(x);
#elif WIDTH == 8
    return (floats)_mm256_set1_ps(x);
#else
    return (floats){x, x, x, x};
#endif
}

/* a * b + c, rounded once where the processor can. */
INLINE floats fused(floats a, floats b, floats c)
{
#if WIDTH > 4 && defined(IN_PLACE)
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
#elif WIDTH == 16
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif WIDTH == 8
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* x where `mask` is -1, y where it is 0. */
INLINE floats where(ints mask, floats x, floats y) { return (floats)((mask & (ints)x) | (~mask & (ints)y)); }
/* The larger one; y where x is NaN. */
INLINE floats larger(floats x, floats y) { return where(x > y, x, y); }
INLINE floats magnitude(floats x) { return (floats)((ints)x & 0x7fffffff); }

/* The next integer, half to even, for |x| < 2^22. */
INLINE floats to_integer(floats x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

/* e^x for x <= 0; NaN for NaN. Below -86 it is e^-86. */
INLINE floats exponential(floats x)
{
    floats least = where(x < -86.0f, all(-86.0f), x), n = to_integer(least * 1.44269504f);
    /* What is left of x, by ln 2 in two parts: n times the first one is exact. */
    floats f = ((least - n * 0.693359375f) + n * 2.12194440e-4f) * 1.44269504f, p = all(1.5403530e-4f);
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    /* n stands in the lowest bits of n + 1.5 * 2^23; shifted, it is added to the exponent. */
    floats found = (floats)((ints)p + (((ints)(n + 0x1.8p23f)) << 23));
    return where(x == x, found, x);
}

/* x * Phi(x) by the error function of Abramowitz and Stegun, 7.1.26, whose error is 1.5e-7. */
INLINE floats gelu(floats x)
{
    floats a = magnitude(x) * 0.70710678f, t = 1.0f / (a * 0.3275911f + 1.0f), p = all(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    floats tail = p * t * exponential(-a * a) * 0.5f;
    return x * where(x < 0.0f, tail, 1.0f - tail);
}

INLINE floats relu(floats x) { return where(x < 0.0f, all(0.0f), x); }

/* The sum of LANES lanes, of halves with each other. */
INLINE float total(const floats *parts)
{
    float lanes[LANES];
    for (int i = 0; i < PARTS; i++)
        store(lanes + WIDTH * i, parts[i]);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

#endif
