/* int8 weights in panels, and tiles of products by them.
 *
 * A panel holds COLUMNS outputs: their starts, int32 [COLUMNS], and then [depth / GROUP][COLUMNS][GROUP] int8, GROUP
 * neighbouring inputs of each output side by side, so that one instruction adds their products to the output's sum. Rows of
 * x are operands with zeros up to a multiple of GROUP. With AVX-512 VNNI these are uint8, the integers plus OFFSET, and a
 * start is what that adds to the sum, with the sign turned; elsewhere int16, and starts are zero. Sums are exact for every
 * int8 value: nothing saturates, and what overflows on the way comes back, up to `numerics.check_depth`'s limit. */
#ifndef SPARSEQ_PANELS_H
#define SPARSEQ_PANELS_H

#include "quantize.h"
#include "vector.h"

#if WIDTH == 16 && defined(__AVX512VNNI__)
typedef uint8_t operand;
typedef int8_t block_value;
#define FORM OFFSET_BYTES
#define GROUP 4
#define VECTORS 4
#else
typedef int16_t operand;
typedef int16_t block_value;
#define FORM SHORTS
#define GROUP 2
#define VECTORS 2
#endif
#define COLUMNS (VECTORS * WIDTH)
#define TILE_ROWS 6
/* Sums that are added to in turn, of few rows: an instruction's result is there only some cycles later. */
#define MOST_CHAINS (GROUP == 2 ? 1 : 4)
INLINE int chains_of(int rows) { return GROUP == 2 || rows > 2 ? 1 : 4 / rows; }

INLINE int64_t padded_depth(int64_t inputs) { return (inputs + GROUP - 1) / GROUP * GROUP; }
INLINE int64_t panels_of(int64_t outputs) { return (outputs + COLUMNS - 1) / COLUMNS; }
INLINE int64_t panel_bytes(int64_t inputs) { return (padded_depth(inputs) + (int64_t)sizeof(int32_t)) * COLUMNS; }
/* What an output's sum begins with, by the sum of its weights. */
INLINE int32_t start_of(int64_t weights) { return FORM == OFFSET_BYTES ? (int32_t)(uint32_t)(-OFFSET * weights) : 0; }

#if WIDTH == 16
typedef __m512i sums;
#elif WIDTH == 8
typedef __m256i sums;
#endif

#if WIDTH > 4
/* s + more */
INLINE sums add_to(sums s, sums more)
{
#if defined(IN_PLACE)
    __asm__("vpaddd %1, %0, %0" : "+v"(s) : "v"(more));
    return s;
#elif WIDTH == 16
    return _mm512_add_epi32(s, more);
#else
    return _mm256_add_epi32(s, more);
#endif
}
#endif

#if WIDTH == 16
INLINE sums load_sums(const int32_t *from) { return _mm512_loadu_si512(from); }
INLINE void store_sums(int32_t *to, sums s) { _mm512_storeu_si512(to, s); }
INLINE sums all_sums(int32_t x) { return _mm512_set1_epi32(x); }
INLINE sums load_operands(const operand *x) { return _mm512_loadu_si512(x); }
#if GROUP == 4
INLINE sums load_weights(const int8_t *w) { return _mm512_loadu_si512(w); }
/* s + x w of each group, w int8 */
INLINE sums add_products(sums s, sums x, sums w)
{
#if defined(IN_PLACE)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(x), "v"(w));
    return s;
#else
    return _mm512_dpbusd_epi32(s, x, w);
#endif
}
#else
INLINE sums load_weights(const int8_t *w) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)w)); }
INLINE sums add_products(sums s, sums x, sums w) { return add_to(s, _mm512_madd_epi16(x, w)); }
#endif
#elif WIDTH == 8
INLINE sums load_sums(const int32_t *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE void store_sums(int32_t *to, sums s) { _mm256_storeu_si256((__m256i *)to, s); }
INLINE sums all_sums(int32_t x) { return _mm256_set1_epi32(x); }
INLINE sums load_operands(const operand *x) { return _mm256_loadu_si256((const __m256i *)x); }
INLINE sums load_weights(const int8_t *w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w)); }
INLINE sums add_products(sums s, sums x, sums w) { return add_to(s, _mm256_madd_epi16(x, w)); }
#endif

/* to [rows][COLUMNS] = x [rows][stride] times a panel of this depth, a multiple of GROUP. */
#if WIDTH > 4
/* The same group of inputs for all outputs: GROUP operands, which take four bytes. */
INLINE sums all_groups(const void *x)
{
    int32_t group;
    memcpy(&group, x, sizeof group);
    return all_sums(group);
}

INLINE void tile_step(const int rows, const operand *x, int64_t stride, const int8_t *weights, sums s[TILE_ROWS][VECTORS])
{
    sums w[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++)
        w[v] = load_weights(weights + v * GROUP * WIDTH);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        sums group = all_groups(x + r * stride);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            s[r][v] = add_products(s[r][v], group, w[v]);
    }
}

INLINE void tile(const int rows, const operand *x, int64_t stride, const int8_t *panel, int64_t depth, int32_t *to)
{
    const int chains = chains_of(rows);
    sums s[MOST_CHAINS][TILE_ROWS][VECTORS];
    const int8_t *weights = panel + sizeof(int32_t) * COLUMNS;
    int64_t k = 0;
#pragma GCC unroll 4
    for (int c = 0; c < chains; c++)
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                s[c][r][v] = c ? all_sums(0) : load_sums((const int32_t *)panel + v * WIDTH);
    for (; k + chains * GROUP <= depth; k += chains * GROUP)
#pragma GCC unroll 4
        for (int c = 0; c < chains; c++)
            tile_step(rows, x + k + c * GROUP, stride, weights + (k + c * GROUP) * COLUMNS, s[c]);
    for (; chains > 1 && k < depth; k += GROUP)
        tile_step(rows, x + k, stride, weights + k * COLUMNS, s[0]);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
#pragma GCC unroll 4
            for (int c = 1; c < chains; c++)
                s[0][r][v] = add_to(s[0][r][v], s[c][r][v]);
            store_sums(to + r * COLUMNS + v * WIDTH, s[0][r][v]);
        }
}
#else
INLINE void tile(const int rows, const operand *x, int64_t stride, const int8_t *panel, int64_t depth, int32_t *to)
{
    const int8_t *weights = panel + sizeof(int32_t) * COLUMNS;
    memset(to, 0, sizeof(int32_t) * COLUMNS * (size_t)rows);
    for (int64_t k = 0; k < depth; k += 2, weights += 2 * COLUMNS)
        for (int r = 0; r < rows; r++)
            for (int n = 0; n < COLUMNS; n++)
                to[r * COLUMNS + n] += x[r * stride + k] * weights[2 * n] + x[r * stride + k + 1] * weights[2 * n + 1];
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
