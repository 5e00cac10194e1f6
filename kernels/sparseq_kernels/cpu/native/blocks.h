/* int8 weights of which only blocks of BLOCK outputs x BLOCK inputs are stored, and products by them.
 *
 * Of many tokens x is transposed in parts of BLOCK_TOKENS, [inputs / GROUP][BLOCK_TOKENS][GROUP]: a vector holds one group of
 * inputs of several tokens, and each group of a block's weights multiplies it as it is. So a block costs what it would cost
 * in a dense weight, whatever the others are. Of few tokens most of such a vector would be empty: their rows stay as they
 * are, and a vector holds a block. */
#ifndef SPARSEQ_BLOCKS_H
#define SPARSEQ_BLOCKS_H

#include "panels.h"

#define BLOCK 4
#define BLOCK_TOKENS (VECTORS * WIDTH)
/* Up to so many tokens take their rows as they are. */
#define FEW_TOKENS 4

/* The parts of so many tokens, and the operands of a part, whose depth is a multiple of a block's. */
INLINE int64_t parts_of(int64_t tokens) { return (tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS; }
INLINE int64_t block_depth(int64_t inputs) { return (inputs + BLOCK - 1) / BLOCK * BLOCK; }
INLINE int64_t part_size(int64_t inputs) { return block_depth(inputs) * BLOCK_TOKENS; }

/* The stored blocks. starts [ceil(outputs / BLOCK) + 1]: of each BLOCK outputs the first one. inputs: of each block, its
 * first input. values: of each block [BLOCK outputs][BLOCK inputs]. sums: what each output's sum begins with, with
 * zeros up to a multiple of BLOCK. */
struct blocks {
    const int32_t *starts, *inputs, *sums;
    const block_value *values;
};

#if WIDTH > 4
INLINE void block_step(const int vectors, const operand *x, const struct blocks *by, int32_t b, sums s[BLOCK][VECTORS])
{
    const operand *groups = x + (int64_t)by->inputs[b] * BLOCK_TOKENS;
    const block_value *values = by->values + (int64_t)b * BLOCK * BLOCK;
#pragma GCC unroll 2
    for (int i = 0; i < BLOCK / GROUP; i++, groups += GROUP * BLOCK_TOKENS, values += GROUP) {
        sums tokens[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            tokens[v] = load_operands(groups + v * GROUP * WIDTH);
#pragma GCC unroll 4
        for (int n = 0; n < BLOCK; n++) {
            sums weights = all_groups(values + BLOCK * n);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                s[n][v] = add_products(s[n][v], tokens[v], weights);
        }
    }
}

/* to [BLOCK][BLOCK_TOKENS]: the sums of BLOCK outputs, for so many vectors of a part of x. One vector alone has two chains
 * of sums, as few rows have in `tile`. */
INLINE void block_tile(const int vectors, const operand *x, const struct blocks *by, int64_t group, int32_t *to)
{
    const int chains = GROUP == 4 && vectors == 1 ? 2 : 1;
    sums s[2][BLOCK][VECTORS];
    int32_t b = by->starts[group], end = by->starts[group + 1];
#pragma GCC unroll 2
    for (int c = 0; c < chains; c++)
#pragma GCC unroll 4
        for (int n = 0; n < BLOCK; n++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                s[c][n][v] = all_sums(c ? 0 : by->sums[group * BLOCK + n]);
    for (; b + chains <= end; b += chains)
#pragma GCC unroll 2
        for (int c = 0; c < chains; c++)
            block_step(vectors, x, by, b + c, s[c]);
    if (chains > 1 && b < end)
        block_step(vectors, x, by, b, s[0]);
#pragma GCC unroll 4
    for (int n = 0; n < BLOCK; n++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            store_sums(to + n * BLOCK_TOKENS + v * WIDTH, chains > 1 ? add_to(s[0][n][v], s[1][n][v]) : s[0][n][v]);
}

/* A block's sums for one token: with VNNI those of its outputs; otherwise, for each output, those of its two groups of
 * inputs. */
#if GROUP == 4
typedef __m128i block_sums;
INLINE block_sums no_block_sums(void) { return _mm_setzero_si128(); }
INLINE block_sums load_block(const block_value *values) { return _mm_loadu_si128((const __m128i *)values); }
INLINE block_sums inputs_of(const operand *x) { return _mm_set1_epi32(*(const unaligned_int *)x); }
INLINE block_sums add_block(block_sums s, block_sums x, block_sums w)
{
#if defined(IN_PLACE)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(x), "v"(w));
    return s;
#else
    return _mm_dpbusd_epi32(s, x, w);
#endif
}
INLINE block_sums add_sums(block_sums x, block_sums y) { return _mm_add_epi32(x, y); }
INLINE __m128i outputs_of(block_sums s) { return s; }
#else
typedef __m256i block_sums;
INLINE block_sums no_block_sums(void) { return _mm256_setzero_si256(); }
INLINE block_sums load_block(const block_value *values) { return _mm256_loadu_si256((const __m256i *)values); }
INLINE block_sums inputs_of(const operand *x)
{
    int64_t inputs;
    memcpy(&inputs, x, sizeof inputs);
    return _mm256_set1_epi64x(inputs);
}
INLINE block_sums add_block(block_sums s, block_sums x, block_sums w) { return _mm256_add_epi32(s, _mm256_madd_epi16(x, w)); }
INLINE block_sums add_sums(block_sums x, block_sums y) { return _mm256_add_epi32(x, y); }
INLINE __m128i outputs_of(block_sums s)
{
    return _mm_hadd_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}
#endif

/* to [rows][COLUMNS]: the sums of BLOCK outputs for some rows of x, as they are. */
INLINE void block_rows(const int rows, const operand *x, int64_t stride, const struct blocks *by, int64_t group, int32_t *to)
{
    const int chains = GROUP == 2 ? 1 : rows < 3 ? 4 : 2;
    block_sums s[4][FEW_TOKENS];
    int32_t b = by->starts[group], end = by->starts[group + 1];
#pragma GCC unroll 4
    for (int c = 0; c < chains; c++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            s[c][r] = no_block_sums();
    for (; b + chains <= end; b += chains)
#pragma GCC unroll 4
        for (int c = 0; c < chains; c++) {
            block_sums block = load_block(by->values + (int64_t)(b + c) * BLOCK * BLOCK);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                s[c][r] = add_block(s[c][r], inputs_of(x + r * stride + by->inputs[b + c]), block);
        }
    for (; chains > 1 && b < end; b++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            s[0][r] = add_block(s[0][r], inputs_of(x + r * stride + by->inputs[b]),
                                load_block(by->values + (int64_t)b * BLOCK * BLOCK));
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int c = 1; c < chains; c++)
            s[0][r] = add_sums(s[0][r], s[c][r]);
        __m128i start = _mm_loadu_si128((const __m128i *)(by->sums + group * BLOCK));
        _mm_storeu_si128((__m128i *)(to + r * COLUMNS), _mm_add_epi32(outputs_of(s[0][r]), start));
    }
}
#else
INLINE void block_tile(const int vectors, const operand *x, const struct blocks *by, int64_t group, int32_t *to)
{
    memset(to, 0, sizeof(int32_t) * BLOCK * BLOCK_TOKENS);
    for (int32_t b = by->starts[group]; b < by->starts[group + 1]; b++)
        for (int i = 0; i < BLOCK / GROUP; i++) {
            const operand *groups = x + ((int64_t)by->inputs[b] + GROUP * i) * BLOCK_TOKENS;
            const block_value *values = by->values + (int64_t)b * BLOCK * BLOCK + GROUP * i;
            for (int n = 0; n < BLOCK; n++)
                for (int t = 0; t < vectors * WIDTH; t++)
                    to[n * BLOCK_TOKENS + t] +=
                        groups[2 * t] * values[BLOCK * n] + groups[2 * t + 1] * values[BLOCK * n + 1];
        }
}

INLINE void block_rows(const int rows, const operand *x, int64_t stride, const struct blocks *by, int64_t group, int32_t *to)
{
    for (int r = 0; r < rows; r++)
        memset(to + r * COLUMNS, 0, sizeof(int32_t) * BLOCK);
    for (int32_t b = by->starts[group]; b < by->starts[group + 1]; b++)
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < BLOCK; k++)
                for (int n = 0; n < BLOCK; n++)
                    to[r * COLUMNS + n] +=
                        x[r * stride + by->inputs[b] + k] * by->values[((int64_t)b * BLOCK + n) * BLOCK + k];
}
#endif

/* Functions of their own, so that all registers are there for the sums. */
#define BLOCK_TILE_OF(vectors)                                                                                         \
    static __attribute__((noinline, unused)) void block_tile_##vectors(const operand *x, const struct blocks *by,      \
                                                                       int64_t group, int32_t *to)                     \
    {                                                                                                                  \
        block_tile(vectors, x, by, group, to);                                                                         \
    }
BLOCK_TILE_OF(1)
BLOCK_TILE_OF(2)
#if VECTORS == 4
BLOCK_TILE_OF(3)
BLOCK_TILE_OF(4)
#endif

static void block_tile_of_tokens(int64_t tokens, const operand *x, const struct blocks *by, int64_t group, int32_t *to)
{
    switch ((tokens + WIDTH - 1) / WIDTH) {
    case 1: block_tile_1(x, by, group, to); break;
#if VECTORS == 4
    case 2: block_tile_2(x, by, group, to); break;
    case 3: block_tile_3(x, by, group, to); break;
    default: block_tile_4(x, by, group, to);
#else
    default: block_tile_2(x, by, group, to);
#endif
    }
}

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

INLINE void copy_group(const operand *x, operand *to) { memcpy(to, x, GROUP * sizeof(operand)); }

/* One part of x [tokens][stride], transposed: [depth / GROUP][BLOCK_TOKENS][GROUP]. What is beyond its tokens, in the last
 * vector that holds any, is zero. depth: a multiple of BLOCK, as is the stride. */
static void transpose_groups(const operand *x, int64_t tokens, int64_t stride, int64_t depth, operand *to)
{
    int64_t m = 0, whole = depth - depth % (4 * GROUP);
    for (int64_t k = 0; k < depth; k += GROUP)
        for (int64_t t = tokens; t < (tokens + WIDTH - 1) / WIDTH * WIDTH; t++)
            memset(to + k * BLOCK_TOKENS + GROUP * t, 0, GROUP * sizeof(operand));
    /* A group is as large as a float. */
    for (; m + 4 <= tokens; m += 4, x += 4 * stride, to += 4 * GROUP) {
        for (int64_t k = 0; k < whole; k += 4 * GROUP)
            transpose_four((const float *)(x + k), stride / GROUP, (float *)(to + k * BLOCK_TOKENS), BLOCK_TOKENS);
        for (int64_t k = whole; k < depth; k += GROUP)
            for (int i = 0; i < 4; i++)
                copy_group(x + i * stride + k, to + k * BLOCK_TOKENS + i * GROUP);
    }
    for (; m < tokens; m++, x += stride, to += GROUP)
        for (int64_t k = 0; k < depth; k += GROUP)
            copy_group(x + k, to + k * BLOCK_TOKENS);
}

/* y [tokens][stride] of x [BLOCK][BLOCK_TOKENS], of `outputs` outputs. */
INLINE void store_transposed(const float *x, int64_t tokens, int64_t outputs, float *y, int64_t stride)
{
    if (tokens < BLOCK_TOKENS || outputs < BLOCK) {
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t i = 0; i < outputs; i++)
                y[t * stride + i] = x[i * BLOCK_TOKENS + t];
        return;
    }
    for (int t = 0; t < BLOCK_TOKENS; t += 4)
        transpose_four(x + t, BLOCK_TOKENS, y + t * stride, stride);
}

#endif
