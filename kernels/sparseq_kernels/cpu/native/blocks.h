/* int8 weights of which only blocks of BLOCK outputs x BLOCK inputs are stored, and products by them.
 *
 * Of many tokens x is transposed in parts of BLOCK_TOKENS, [inputs / GROUP][lanes_of(tokens)][GROUP]: a vector holds one group of
 * inputs of several tokens, and each group of a block's weights multiplies it as it is. So a block costs what it would cost
 * in a dense weight, whatever the others are. For few tokens, of which most of such a vector would be empty: few_rows.h. */
#ifndef SPARSEQ_BLOCKS_H
#define SPARSEQ_BLOCKS_H

#include "panels.h"

#define BLOCK 4
#define BLOCK_TOKENS (VECTORS * WIDTH)
#if GROUP == 4
#define HALF 8 /* Up to so many tokens take half a vector. */
#else
#define HALF 0
#endif

/* The parts of so many tokens, and the operands of a part, whose depth is a multiple of a block's. */
INLINE int64_t parts_of(int64_t tokens) { return (tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS; }
INLINE int64_t block_depth(int64_t inputs) { return (inputs + BLOCK - 1) / BLOCK * BLOCK; }
INLINE int64_t part_size(int64_t inputs) { return block_depth(inputs) * BLOCK_TOKENS; }
/* The tokens that a part holds for so many of them: whole vectors, or half a vector. They lie side by side, since steps as
 * long as a whole part's meet in a few lines of the first-level cache. */
INLINE int64_t lanes_of(int64_t tokens)
{
    return HALF && tokens <= HALF ? HALF : (tokens + WIDTH - 1) / WIDTH * WIDTH;
}

/* The stored blocks. starts [ceil(outputs / BLOCK) + 1]: of each BLOCK outputs the first one. places: of each block, its
 * first input / BLOCK, and BLOCKS_PAST zeros. values: of each block [BLOCK outputs][BLOCK inputs]. sums: what each output's sum begins with, with
 * zeros up to a multiple of BLOCK. */
struct blocks {
    const int32_t *starts;
    const uint16_t *places;
    const int32_t *sums;
    const block_value *values;
};
#define BLOCKS_PAST 3 /* that few_rows.h reads at once with the last one */

#if WIDTH > 4
INLINE void block_step(const int vectors, const operand *x, const struct blocks *by, int32_t b, sums s[BLOCK][VECTORS])
{
    const int lanes = vectors * WIDTH;
    const operand *groups = x + (int64_t)by->places[b] * BLOCK * lanes;
    const block_value *values = by->values + (int64_t)b * BLOCK * BLOCK;
#pragma GCC unroll 2
    for (int i = 0; i < BLOCK / GROUP; i++, groups += GROUP * lanes, values += GROUP) {
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

#else
INLINE void block_tile(const int vectors, const operand *x, const struct blocks *by, int64_t group, int32_t *to)
{
    memset(to, 0, sizeof(int32_t) * BLOCK * BLOCK_TOKENS);
    for (int32_t b = by->starts[group]; b < by->starts[group + 1]; b++)
        for (int i = 0; i < BLOCK / GROUP; i++) {
            const operand *groups = x + ((int64_t)by->places[b] * BLOCK + GROUP * i) * vectors * WIDTH;
            const block_value *values = by->values + (int64_t)b * BLOCK * BLOCK + GROUP * i;
            for (int n = 0; n < BLOCK; n++)
                for (int t = 0; t < vectors * WIDTH; t++)
                    to[n * BLOCK_TOKENS + t] +=
                        groups[2 * t] * values[BLOCK * n] + groups[2 * t + 1] * values[BLOCK * n + 1];
        }
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

#if HALF
/* s + x w of each group, of the same group of weights for all. */
INLINE __m256i add_half(__m256i s, __m256i x, const int8_t *weights)
{
#if defined(IN_PLACE)
    __asm__("vpdpbusd %2%{1to8%}, %1, %0" : "+v"(s) : "v"(x), "m"(*(const unaligned_int *)weights));
    return s;
#else
    return _mm256_dpbusd_epi32(s, x, _mm256_set1_epi32(*(const unaligned_int *)weights));
#endif
}

INLINE void half_step(const operand *x, const struct blocks *by, int32_t b, __m256i s[BLOCK])
{
    const int8_t *values = by->values + (int64_t)b * BLOCK * BLOCK;
    __m256i tokens = _mm256_loadu_si256((const __m256i *)(x + (int64_t)by->places[b] * BLOCK * HALF));
#pragma GCC unroll 4
    for (int n = 0; n < BLOCK; n++)
        s[n] = add_half(s[n], tokens, values + BLOCK * n);
}

/* The same for at most HALF tokens, at half the work; the sums of those after them are zero. Two chains, as above. */
static __attribute__((noinline)) void half_tile(const operand *x, const struct blocks *by, int64_t group, int32_t *to)
{
    __m256i s[2][BLOCK];
    int32_t b = by->starts[group], end = by->starts[group + 1];
#pragma GCC unroll 4
    for (int n = 0; n < BLOCK; n++) {
        s[0][n] = _mm256_set1_epi32(by->sums[group * BLOCK + n]);
        s[1][n] = _mm256_setzero_si256();
    }
    for (; b + 2 <= end; b += 2)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++)
            half_step(x, by, b + c, s[c]);
    if (b < end)
        half_step(x, by, b, s[0]);
#pragma GCC unroll 4
    for (int n = 0; n < BLOCK; n++) {
        _mm256_storeu_si256((__m256i *)(to + n * BLOCK_TOKENS), _mm256_add_epi32(s[0][n], s[1][n]));
        _mm256_storeu_si256((__m256i *)(to + n * BLOCK_TOKENS + HALF), _mm256_setzero_si256());
    }
}
#endif

static void block_tile_of_tokens(int64_t tokens, const operand *x, const struct blocks *by, int64_t group, int32_t *to)
{
#if HALF
    if (tokens <= HALF) {
        half_tile(x, by, group, to);
        return;
    }
#endif
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

INLINE void copy_group(const operand *x, operand *to) { memcpy(to, x, GROUP * sizeof(operand)); }

/* One part of x [tokens][stride], transposed: [depth / GROUP][lanes_of(tokens)][GROUP], with zeros past its tokens. depth: a
 * multiple of BLOCK, as is the stride. */
static void transpose_groups(const operand *x, int64_t tokens, int64_t stride, int64_t depth, operand *to)
{
    int64_t m = 0, whole = depth - depth % (4 * GROUP), lanes = lanes_of(tokens);
    if (lanes > tokens)
        for (int64_t k = 0; k < depth; k += GROUP)
            memset(to + k * lanes + GROUP * tokens, 0, (size_t)(lanes - tokens) * GROUP * sizeof(operand));
    /* A group is as large as a float. */
    for (; m + 4 <= tokens; m += 4, x += 4 * stride, to += 4 * GROUP) {
        for (int64_t k = 0; k < whole; k += 4 * GROUP)
            transpose_four((const float *)(x + k), stride / GROUP, (float *)(to + k * lanes), lanes);
        for (int64_t k = whole; k < depth; k += GROUP)
            for (int i = 0; i < 4; i++)
                copy_group(x + i * stride + k, to + k * lanes + i * GROUP);
    }
    for (; m < tokens; m++, x += stride, to += GROUP)
        for (int64_t k = 0; k < depth; k += GROUP)
            copy_group(x + k, to + k * lanes);
}

/* y [lanes][stride] of x [BLOCK][BLOCK_TOKENS], transposed; lanes: of tokens, a multiple of 4. */
INLINE void transpose_outputs(const float *x, int64_t lanes, float *y, int64_t stride)
{
    for (int64_t t = 0; t < lanes; t += 4)
        transpose_four(x + t, BLOCK_TOKENS, y + t * stride, stride);
}

#endif
