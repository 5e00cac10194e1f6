/* Products by blocks of few rows, which stay as they are: a vector holds whole blocks. */
#ifndef SPARSEQ_FEW_ROWS_H
#define SPARSEQ_FEW_ROWS_H

#include "blocks.h"

/* Up to so many tokens take their rows as they are. */
#define FEW_TOKENS 4

#if WIDTH > 4
/* With VNNI a vector holds TOGETHER blocks, and the sums of each one's outputs; otherwise one block, and for each output the
 * sums of its two groups of inputs. */
#if GROUP == 4
#define TOGETHER 4
typedef sums block_sums;
INLINE block_sums no_block_sums(void) { return all_sums(0); }
INLINE block_sums add_blocks(block_sums s, block_sums x, block_sums w) { return add_products(s, x, w); }
INLINE block_sums add_sums(block_sums x, block_sums y) { return add_to(x, y); }
/* `count` blocks, and zeros. */
INLINE block_sums load_blocks(const block_value *values, int64_t count)
{
    if (count >= TOGETHER)
        return load_weights(values);
#if defined(SPARSEQ_EMULATED)
    block_value to[TOGETHER * BLOCK * BLOCK] = {0};
    memcpy(to, values, (size_t)(count * BLOCK * BLOCK));
    return load_weights(to);
#else
    return _mm512_maskz_loadu_epi64((__mmask8)((1 << 2 * count) - 1), values);
#endif
}
/* What each of the blocks at these places multiplies, for each of its outputs. */
INLINE block_sums inputs_of(const operand *x, const uint16_t *places)
{
    uint64_t four;
    memcpy(&four, places, sizeof four);
    const operand *first = x + BLOCK * (four & 0xffff), *second = x + BLOCK * (four >> 16 & 0xffff);
    const operand *third = x + BLOCK * (four >> 32 & 0xffff), *fourth = x + BLOCK * (four >> 48);
#if defined(IN_PLACE)
    /* Each one load: of the intrinsics GCC makes a load to a register of another kind, and a way from there. */
    block_sums found;
    __asm__("vpbroadcastd %1, %0" : "=v"(found) : "m"(*(const unaligned_int *)first));
    __asm__("vpbroadcastd %1, %0%{%2%}" : "+v"(found) : "m"(*(const unaligned_int *)second), "Yk"((__mmask16)0x00f0));
    __asm__("vpbroadcastd %1, %0%{%2%}" : "+v"(found) : "m"(*(const unaligned_int *)third), "Yk"((__mmask16)0x0f00));
    __asm__("vpbroadcastd %1, %0%{%2%}" : "+v"(found) : "m"(*(const unaligned_int *)fourth), "Yk"((__mmask16)0xf000));
    return found;
#elif !defined(SPARSEQ_EMULATED)
    block_sums found = _mm512_set1_epi32(*(const unaligned_int *)first);
    found = _mm512_mask_set1_epi32(found, 0x00f0, *(const unaligned_int *)second);
    found = _mm512_mask_set1_epi32(found, 0x0f00, *(const unaligned_int *)third);
    return _mm512_mask_set1_epi32(found, 0xf000, *(const unaligned_int *)fourth);
#else
    const operand *each[TOGETHER] = {first, second, third, fourth};
    int32_t found[WIDTH];
    for (int i = 0; i < WIDTH; i++)
        memcpy(found + i, each[i / BLOCK], BLOCK);
    return load_sums(found);
#endif
}
INLINE __m128i outputs_of(block_sums s)
{
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
_Static_assert(sizeof(uint64_t) == TOGETHER * sizeof(uint16_t) && BLOCKS_PAST >= TOGETHER - 1, "places are read as one word");
#else
#define TOGETHER 1
typedef __m256i block_sums;
INLINE block_sums no_block_sums(void) { return _mm256_setzero_si256(); }
INLINE block_sums add_blocks(block_sums s, block_sums x, block_sums w) { return _mm256_add_epi32(s, _mm256_madd_epi16(x, w)); }
INLINE block_sums add_sums(block_sums x, block_sums y) { return _mm256_add_epi32(x, y); }
INLINE block_sums load_blocks(const block_value *values, int64_t count)
{
    (void)count; /* It is one. */
    return _mm256_loadu_si256((const __m256i *)values);
}
INLINE block_sums inputs_of(const operand *x, const uint16_t *places)
{
    int64_t inputs;
    memcpy(&inputs, x + BLOCK * places[0], sizeof inputs);
    return _mm256_set1_epi64x(inputs);
}
INLINE __m128i outputs_of(block_sums s) { return _mm_hadd_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)); }
#endif

/* Adds the products of up to TOGETHER blocks, from b on, with some rows of x. */
INLINE void add_rows(const int rows, const operand *x, int64_t stride, const struct blocks *by, int32_t b, int64_t count,
                     block_sums s[FEW_TOKENS])
{
    block_sums blocks = load_blocks(by->values + (int64_t)b * BLOCK * BLOCK, count);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        s[r] = add_blocks(s[r], inputs_of(x + r * stride, by->places + b), blocks);
}

/* to [rows][COLUMNS]: the sums of BLOCK outputs for some rows of x, as they are. */
INLINE void block_rows(const int rows, const operand *x, int64_t stride, const struct blocks *by, int64_t group, int32_t *to)
{
    const int chains = GROUP == 4 && rows < 3 ? 2 : 1;
    block_sums s[2][FEW_TOKENS];
    int32_t b = by->starts[group], end = by->starts[group + 1];
#pragma GCC unroll 2
    for (int c = 0; c < chains; c++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            s[c][r] = no_block_sums();
    for (; b + chains * TOGETHER <= end; b += chains * TOGETHER)
#pragma GCC unroll 2
        for (int c = 0; c < chains; c++)
            add_rows(rows, x, stride, by, b + c * TOGETHER, TOGETHER, s[c]);
    for (; b < end; b += TOGETHER)
        add_rows(rows, x, stride, by, b, end - b, s[0]);
    __m128i start = _mm_loadu_si128((const __m128i *)(by->sums + group * BLOCK));
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        block_sums all = chains > 1 ? add_sums(s[0][r], s[1][r]) : s[0][r];
        _mm_storeu_si128((__m128i *)(to + r * COLUMNS), _mm_add_epi32(outputs_of(all), start));
    }
}
#else
INLINE void block_rows(const int rows, const operand *x, int64_t stride, const struct blocks *by, int64_t group, int32_t *to)
{
    for (int r = 0; r < rows; r++)
        memset(to + r * COLUMNS, 0, sizeof(int32_t) * BLOCK);
    for (int32_t b = by->starts[group]; b < by->starts[group + 1]; b++)
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < BLOCK; k++)
                for (int n = 0; n < BLOCK; n++)
                    to[r * COLUMNS + n] +=
                        x[r * stride + by->places[b] * BLOCK + k] * by->values[((int64_t)b * BLOCK + n) * BLOCK + k];
}
#endif

/* Functions of their own, so that all registers are there for the sums. */
#define BLOCK_ROWS_OF(rows)                                                                                            \
    static __attribute__((noinline, unused)) void block_rows_##rows(                                                   \
        const operand *x, int64_t stride, const struct blocks *by, int64_t group, int32_t *to)                         \
    {                                                                                                                  \
        block_rows(rows, x, stride, by, group, to);                                                                    \
    }
BLOCK_ROWS_OF(1)
BLOCK_ROWS_OF(2)
BLOCK_ROWS_OF(3)
BLOCK_ROWS_OF(4)

static void block_rows_of(int64_t rows, const operand *x, int64_t stride, const struct blocks *by, int64_t group,
                          int32_t *to)
{
    switch (rows) {
    case 1: block_rows_1(x, stride, by, group, to); break;
    case 2: block_rows_2(x, stride, by, group, to); break;
    case 3: block_rows_3(x, stride, by, group, to); break;
    default: block_rows_4(x, stride, by, group, to);
    }
}

#endif
