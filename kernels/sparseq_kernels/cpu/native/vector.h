/* Vectors of floats, as the compiler has them for the instruction set, and the functions of an encoder on them.
 *
 * Sums run in LANES lanes whatever the width of a vector is, and nothing is fused but by `fused`: results are the same bits
 * for every instruction set that rounds that once, and those of what does not use it, for every one. */
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
/* Elements that a pass over memory is worth threads from: for fewer, to start them costs more than the work. */
#define PARALLEL_ELEMENTS 16384
#define PARTS (LANES / WIDTH)

typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH)));
typedef int8_t bytes __attribute__((vector_size(WIDTH)));
typedef float unaligned_floats __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

typedef int32_t unaligned_ints __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
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

/* to [4][to_stride] = x [4] transposed. */
INLINE void store_four_transposed(const four x[4], float *to, int64_t to_stride)
{
    four ac = shuffle_four(x[0], x[2], 0, 4, 1, 5), AC = shuffle_four(x[0], x[2], 2, 6, 3, 7);
    four bd = shuffle_four(x[1], x[3], 0, 4, 1, 5), BD = shuffle_four(x[1], x[3], 2, 6, 3, 7);
    store_four(to, shuffle_four(ac, bd, 0, 4, 1, 5));
    store_four(to + to_stride, shuffle_four(ac, bd, 2, 6, 3, 7));
    store_four(to + 2 * to_stride, shuffle_four(AC, BD, 0, 4, 1, 5));
    store_four(to + 3 * to_stride, shuffle_four(AC, BD, 2, 6, 3, 7));
}

/* to [4][to_stride] = x [4][stride] transposed. */
INLINE void transpose_four(const float *x, int64_t stride, float *to, int64_t to_stride)
{
    store_four_transposed((four[4]){load_four(x), load_four(x + stride), load_four(x + 2 * stride), load_four(x + 3 * stride)},
                          to, to_stride);
}

INLINE floats load_converted(const int32_t *x)
{
    return __builtin_convertvector(*(const unaligned_ints *)x, floats);
}
INLINE floats load_bytes(const int8_t *x)
{
#if WIDTH == 16 && !defined(SPARSEQ_EMULATED)
    return (floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)x)));
#elif WIDTH == 8
    return (floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)x)));
#else
    bytes found;
    memcpy(&found, x, sizeof found);
    return __builtin_convertvector(__builtin_convertvector(found, ints), floats);
#endif
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
#elif defined(__FP_FAST_FMAF)
    for (int i = 0; i < WIDTH; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}

/* The larger and the smaller one; y where one is NaN. */
#if WIDTH == 16
INLINE floats larger(floats x, floats y) { return (floats)_mm512_max_ps((__m512)x, (__m512)y); }
INLINE floats smaller(floats x, floats y) { return (floats)_mm512_min_ps((__m512)x, (__m512)y); }
#elif WIDTH == 8
INLINE floats larger(floats x, floats y) { return (floats)_mm256_max_ps((__m256)x, (__m256)y); }
INLINE floats smaller(floats x, floats y) { return (floats)_mm256_min_ps((__m256)x, (__m256)y); }
#else
INLINE floats where(ints mask, floats x, floats y) { return (floats)((mask & (ints)x) | (~mask & (ints)y)); }
INLINE floats larger(floats x, floats y) { return where(x > y, x, y); }
INLINE floats smaller(floats x, floats y) { return where(x < y, x, y); }
#endif
INLINE floats magnitude(floats x) { return (floats)((ints)x & 0x7fffffff); }

/* The integers next to x, half to even, for |x| < 2^22; where x is NaN, a multiple of 2^16. */
INLINE ints rounded(floats x)
{
#if WIDTH == 16
    return (ints)_mm512_cvtps_epi32((__m512)x);
#elif WIDTH == 8
    return (ints)_mm256_cvtps_epi32((__m256)x);
#else
    floats known = (floats)((x == x) & (ints)x);
    return __builtin_convertvector((known + 0x1.8p23f) - 0x1.8p23f, ints);
#endif
}

/* 2^x for x <= 0, with a relative error of 2e-7; NaN for NaN. Below -125 it is 2^-125. */
INLINE floats power_of_two(floats x)
{
    floats least = larger(all(-125.0f), x), n = least + 0x1.8p23f, f = least - (n - 0x1.8p23f);
    /* The least largest error for 2^f, |f| <= 1/2, among polynomials of this degree that are 1 at 0. */
    floats p = fused(f, all(1.32647238e-3f), all(9.67151299e-3f));
    p = fused(p, f, all(5.55073358e-2f));
    p = fused(p, f, all(2.40222424e-1f));
    p = fused(p, f, all(6.93147004e-1f));
    p = fused(p, f, all(1.0f));
    /* The integer next to x stands in the lowest bits of n: shifted, it is an exponent. A NaN stays one in p. */
    return p * (floats)(((ints)n << 23) + 0x3f800000);
}

/* x * Phi(x), with an error of 2e-7 of the larger of 1 and |x|.
 *
 * It is max(x, 0) - |x| Phi(-|x|). Phi(-a) = 2^q(a), where q + 1 is a polynomial whose error is weighted by a Phi(-a) up to
 * a = 6; beyond, it goes on falling. */
INLINE floats gelu(floats x)
{
    floats a = magnitude(x), q = fused(a, all(-1.90204298e-6f), all(2.80566273e-5f));
    q = fused(q, a, all(-1.3147149e-4f));
    q = fused(q, a, all(-2.72080651e-4f));
    q = fused(q, a, all(7.24542886e-3f));
    q = fused(q, a, all(-5.26276156e-2f));
    q = fused(q, a, all(-4.59162146e-1f));
    q = fused(q, a, all(-1.15111101f));
    q = fused(q, a, all(-1.0f));
    return fused(-a, power_of_two(q), larger(all(0.0f), x));
}

INLINE floats relu(floats x) { return larger(all(0.0f), x); }

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
