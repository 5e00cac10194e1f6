/* AVX-512 as far as the native code uses it, on a processor that has AVX2 alone: included before a source file
 * (-include), it stands in for the instructions, so that the code for them runs anywhere. EMULATE_VNNI adds VNNI. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512DQ__ 1
#define __AVX512VL__ 1

#define SPARSEQ_EMULATED /* The native code then has no assembly. */
#define EMULATED static inline __attribute__((always_inline, unused))

typedef int32_t emulated_ints __attribute__((vector_size(64)));
typedef int16_t emulated_shorts __attribute__((vector_size(64)));

EMULATED __m512i emulated_load(const void *from)
{
    __m512i x;
    memcpy(&x, from, sizeof x);
    return x;
}
EMULATED void emulated_store(void *to, __m512i x) { memcpy(to, &x, sizeof x); }
EMULATED __m512i emulated_all(int32_t x) { return (__m512i)((emulated_ints){0} + x); }
EMULATED __m512 emulated_all_floats(float x)
{
    float to[16];
    for (int i = 0; i < 16; i++)
        to[i] = x;
    __m512 found;
    memcpy(&found, to, sizeof to);
    return found;
}
EMULATED __m512i emulated_add(__m512i x, __m512i y)
{
    int32_t a[16], b[16];
    memcpy(a, &x, sizeof a);
    memcpy(b, &y, sizeof b);
    for (int i = 0; i < 16; i++)
        a[i] = (int32_t)((uint32_t)a[i] + (uint32_t)b[i]);
    return emulated_load(a);
}
EMULATED __m512i emulated_widen(__m256i x)
{
    int8_t from[32];
    int16_t to[32];
    memcpy(from, &x, sizeof from);
    for (int i = 0; i < 32; i++)
        to[i] = from[i];
    return emulated_load(to);
}
EMULATED __m512i emulated_madd(__m512i x, __m512i y)
{
    int16_t a[32], b[32];
    int32_t to[16];
    memcpy(a, &x, sizeof a);
    memcpy(b, &y, sizeof b);
    for (int i = 0; i < 16; i++)
        to[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    return emulated_load(to);
}
EMULATED __m512 emulated_fused(__m512 x, __m512 y, __m512 z)
{
    __m256 a[2], b[2], c[2];
    memcpy(a, &x, sizeof a);
    memcpy(b, &y, sizeof b);
    memcpy(c, &z, sizeof c);
    for (int i = 0; i < 2; i++)
        a[i] = _mm256_fmadd_ps(a[i], b[i], c[i]);
    memcpy(&x, a, sizeof a);
    return x;
}
#define EMULATED_BY_HALVES(name, function)                                                                             \
    EMULATED __m512 name(__m512 x, __m512 y)                                                                           \
    {                                                                                                                  \
        __m256 a[2], b[2];                                                                                             \
        memcpy(a, &x, sizeof a);                                                                                       \
        memcpy(b, &y, sizeof b);                                                                                       \
        for (int i = 0; i < 2; i++)                                                                                    \
            a[i] = function(a[i], b[i]);                                                                               \
        memcpy(&x, a, sizeof a);                                                                                       \
        return x;                                                                                                      \
    }
EMULATED_BY_HALVES(emulated_max, _mm256_max_ps)
EMULATED_BY_HALVES(emulated_min, _mm256_min_ps)
EMULATED __m512i emulated_rounded(__m512 x)
{
    __m256 a[2];
    __m256i to[2];
    memcpy(a, &x, sizeof a);
    for (int i = 0; i < 2; i++)
        to[i] = _mm256_cvtps_epi32(a[i]);
    return emulated_load(to);
}
typedef float emulated_floats __attribute__((vector_size(64)));
/* c + a b of each pair of bf16, the second one first. */
EMULATED emulated_floats emulated_dpbf16(emulated_floats a, emulated_floats b, emulated_floats c)
{
    uint32_t x[16], y[16];
    float s[16];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    memcpy(s, &c, sizeof s);
    for (int i = 0; i < 16; i++) {
        uint32_t parts[4] = {x[i] & 0xffff0000u, y[i] & 0xffff0000u, x[i] << 16, y[i] << 16};
        float values[4];
        memcpy(values, parts, sizeof values);
        s[i] = __builtin_fmaf(values[2], values[3], __builtin_fmaf(values[0], values[1], s[i]));
    }
    memcpy(&c, s, sizeof s);
    return c;
}
EMULATED __m256i emulated_half(__m512i x, int half)
{
    __m256i halves[2];
    memcpy(halves, &x, sizeof x);
    return halves[half];
}
/* s + x w by four, without saturation: x uint8, w int8. */
EMULATED void emulated_dot(int32_t *s, const uint8_t *x, const int8_t *w, int lanes)
{
    for (int i = 0; i < lanes; i++)
        for (int k = 4 * i; k < 4 * i + 4; k++)
            s[i] = (int32_t)((uint32_t)s[i] + (uint32_t)(x[k] * w[k]));
}
EMULATED __m512i emulated_dpbusd(__m512i s, __m512i x, __m512i w)
{
    int32_t sums[16];
    memcpy(sums, &s, sizeof sums);
    emulated_dot(sums, (const uint8_t *)&x, (const int8_t *)&w, 16);
    return emulated_load(sums);
}
EMULATED __m256i emulated_dpbusd_256(__m256i s, __m256i x, __m256i w)
{
    int32_t sums[8];
    memcpy(sums, &s, sizeof sums);
    emulated_dot(sums, (const uint8_t *)&x, (const int8_t *)&w, 8);
    memcpy(&s, sums, sizeof sums);
    return s;
}

#define _mm512_loadu_si512(from) emulated_load(from)
#define _mm512_storeu_si512(to, x) emulated_store(to, x)
#define _mm512_set1_epi32(x) emulated_all(x)
#define _mm512_set1_ps(x) emulated_all_floats(x)
#define _mm512_setzero_si512() emulated_all(0)
#define _mm512_add_epi32(x, y) emulated_add(x, y)
#define _mm512_cvtepi8_epi16(x) emulated_widen(x)
#define _mm512_madd_epi16(x, y) emulated_madd(x, y)
#define _mm512_fmadd_ps(x, y, z) emulated_fused(x, y, z)
#define _mm512_max_ps(x, y) emulated_max(x, y)
#define _mm512_min_ps(x, y) emulated_min(x, y)
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32(x) emulated_rounded(x)
#define _mm512_castsi512_si256(x) emulated_half(x, 0)
#define _mm512_extracti64x4_epi64(x, half) emulated_half(x, half)

#ifdef EMULATE_VNNI
#define __AVX512VNNI__ 1
#define _mm512_dpbusd_epi32(s, x, w) emulated_dpbusd(s, x, w)
#undef _mm256_dpbusd_epi32
#define _mm256_dpbusd_epi32(s, x, w) emulated_dpbusd_256(s, x, w)
#define _mm512_dpwssd_epi32(s, x, w) emulated_add(s, emulated_madd(x, w))
#endif
