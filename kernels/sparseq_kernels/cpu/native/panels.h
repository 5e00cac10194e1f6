/* int8 weights in panels, and tiles of products by them.
 *
 * A panel holds COLUMNS outputs: [depth / 2][COLUMNS][2] int8, two neighbouring inputs of each output side by side, so that
 * one instruction adds both products to the output's sum. Rows of x are int16 with zeros up to an even depth. Products of
 * int16 are added in int32: exact for every int8 value, as nothing saturates before `numerics.check_depth`'s limit. */
#ifndef SPARSEQ_PANELS_H
#define SPARSEQ_PANELS_H

#include "vector.h"

#define COLUMNS (2 * WIDTH)
#define TILE_ROWS 6

typedef int16_t operand;

INLINE int64_t even(int64_t depth) { return (depth + 1) & ~(int64_t)1; }
INLINE int64_t panels_of(int64_t outputs) { return (outputs + COLUMNS - 1) / COLUMNS; }
INLINE int64_t panel_bytes(int64_t inputs) { return even(inputs) * COLUMNS; }

#if WIDTH == 16
typedef __m512i sums;
INLINE sums no_sums(void) { return _mm512_setzero_si512(); }
INLINE sums widen(const int8_t *w) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)w)); }
INLINE sums pair(const operand *x)
{
    int32_t both;
    memcpy(&both, x, 4);
    return _mm512_set1_epi32(both);
}
INLINE sums add_products(sums s, sums x, sums w)
{
#if defined(__AVX512VNNI__)
    return _mm512_dpwssd_epi32(s, x, w);
#else
    return _mm512_add_epi32(s, _mm512_madd_epi16(x, w));
#endif
}
INLINE sums load_operands(const operand *x) { return _mm512_loadu_si512(x); }
INLINE void store_sums(int32_t *to, sums s) { _mm512_storeu_si512(to, s); }
#elif WIDTH == 8
typedef __m256i sums;
INLINE sums no_sums(void) { return _mm256_setzero_si256(); }
INLINE sums widen(const int8_t *w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w)); }
INLINE sums pair(const operand *x)
{
    int32_t both;
    memcpy(&both, x, 4);
    return _mm256_set1_epi32(both);
}
INLINE sums add_products(sums s, sums x, sums w) { return _mm256_add_epi32(s, _mm256_madd_epi16(x, w)); }
INLINE sums load_operands(const operand *x) { return _mm256_loadu_si256((const __m256i *)x); }
INLINE void store_sums(int32_t *to, sums s) { _mm256_storeu_si256((__m256i *)to, s); }
#endif

/* to [rows][COLUMNS] = x [rows][stride] times a panel of this depth, which is even. */
#if WIDTH > 4
INLINE void tile(const int rows, const operand *x, int64_t stride, const int8_t *panel, int64_t depth, int32_t *to)
{
    sums s[TILE_ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = no_sums();
    for (int64_t k = 0; k < depth; k += 2, panel += 2 * COLUMNS) {
        sums first = widen(panel), second = widen(panel + COLUMNS);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            sums both = pair(x + r * stride + k);
            s[r][0] = add_products(s[r][0], both, first);
            s[r][1] = add_products(s[r][1], both, second);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        store_sums(to + r * COLUMNS, s[r][0]);
        store_sums(to + r * COLUMNS + WIDTH, s[r][1]);
    }
}
#else
INLINE void tile(const int rows, const operand *x, int64_t stride, const int8_t *panel, int64_t depth, int32_t *to)
{
    memset(to, 0, sizeof(int32_t) * COLUMNS * (size_t)rows);
    for (int64_t k = 0; k < depth; k += 2, panel += 2 * COLUMNS)
        for (int r = 0; r < rows; r++)
            for (int n = 0; n < COLUMNS; n++)
                to[r * COLUMNS + n] += x[r * stride + k] * panel[2 * n] + x[r * stride + k + 1] * panel[2 * n + 1];
}
#endif

/* Functions of their own, so that all registers are there for the sums. */
#define TILE_OF(rows)                                                                                                  \
    static __attribute__((noinline, unused)) void tile_##rows(const operand *x, int64_t stride, const int8_t *panel,   \
                                                              int64_t depth, int32_t *to)                              \
    {                                                                                                                  \
        tile(rows, x, stride, panel, depth, to);                                                                       \
    }
TILE_OF(1)
TILE_OF(2)
TILE_OF(3)
TILE_OF(4)
TILE_OF(5)
TILE_OF(6)

static void tile_of_rows(int64_t rows, const operand *x, int64_t stride, const int8_t *panel, int64_t depth, int32_t *to)
{
    switch (rows) {
    case 1: tile_1(x, stride, panel, depth, to); break;
    case 2: tile_2(x, stride, panel, depth, to); break;
    case 3: tile_3(x, stride, panel, depth, to); break;
    case 4: tile_4(x, stride, panel, depth, to); break;
    case 5: tile_5(x, stride, panel, depth, to); break;
    default: tile_6(x, stride, panel, depth, to);
    }
}

#endif
