/* int8 weights of which only blocks of BLOCK outputs x BLOCK inputs are stored, and products by them.
 *
 * x is transposed in parts of BLOCK_TOKENS tokens, [inputs / 2][BLOCK_TOKENS][2] int16: a vector holds one pair of inputs of
 * several tokens, and each weight of a block multiplies it as it is. So a block costs what it would cost in a dense weight,
 * whatever the others are. */
#ifndef SPARSEQ_BLOCKS_H
#define SPARSEQ_BLOCKS_H

#include "panels.h"

#define BLOCK 4
#define BLOCK_TOKENS (2 * WIDTH)

/* The parts of so many tokens, and the operands of a part, whose depth is a multiple of a block's. */
INLINE int64_t parts_of(int64_t tokens) { return (tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS; }
INLINE int64_t part_size(int64_t inputs) { return (inputs + BLOCK - 1) / BLOCK * BLOCK * BLOCK_TOKENS; }

/* The stored blocks. starts [ceil(outputs / BLOCK) + 1]: of each BLOCK outputs the first one. inputs: of each block, its
 * first input. values: of each block [BLOCK / 2][BLOCK outputs][2] int16. */
struct blocks {
    const int32_t *starts, *inputs;
    const int16_t *values;
};

/* to [BLOCK][BLOCK_TOKENS]: the sums of BLOCK outputs, for one part of x. */
#if WIDTH > 4
INLINE void block_tile(const operand *x, const struct blocks *by, int64_t group, int32_t *to)
{
    sums s[BLOCK][2];
#pragma GCC unroll 4
    for (int n = 0; n < BLOCK; n++)
        s[n][0] = s[n][1] = no_sums();
    for (int32_t b = by->starts[group]; b < by->starts[group + 1]; b++) {
        const operand *pairs = x + (int64_t)by->inputs[b] * BLOCK_TOKENS;
        const int16_t *values = by->values + (int64_t)b * BLOCK * BLOCK;
#pragma GCC unroll 2
        for (int i = 0; i < BLOCK / 2; i++, pairs += 2 * BLOCK_TOKENS, values += 2 * BLOCK) {
            sums first = load_operands(pairs), second = load_operands(pairs + 2 * WIDTH);
#pragma GCC unroll 4
            for (int n = 0; n < BLOCK; n++) {
                sums both = pair(values + 2 * n);
                s[n][0] = add_products(s[n][0], first, both);
                s[n][1] = add_products(s[n][1], second, both);
            }
        }
    }
#pragma GCC unroll 4
    for (int n = 0; n < BLOCK; n++) {
        store_sums(to + n * BLOCK_TOKENS, s[n][0]);
        store_sums(to + n * BLOCK_TOKENS + WIDTH, s[n][1]);
    }
}
#else
INLINE void block_tile(const operand *x, const struct blocks *by, int64_t group, int32_t *to)
{
    memset(to, 0, sizeof(int32_t) * BLOCK * BLOCK_TOKENS);
    for (int32_t b = by->starts[group]; b < by->starts[group + 1]; b++)
        for (int i = 0; i < BLOCK / 2; i++) {
            const operand *pairs = x + ((int64_t)by->inputs[b] + 2 * i) * BLOCK_TOKENS;
            const int16_t *values = by->values + ((int64_t)b * BLOCK + 2 * i) * BLOCK;
            for (int n = 0; n < BLOCK; n++)
                for (int t = 0; t < BLOCK_TOKENS; t++)
                    to[n * BLOCK_TOKENS + t] += pairs[2 * t] * values[2 * n] + pairs[2 * t + 1] * values[2 * n + 1];
        }
}
#endif

/* to [inputs / 2][BLOCK_TOKENS][2] of x [tokens][inputs]: one part of x, of an even number of inputs. */
static void transpose_pairs(const operand *x, int64_t tokens, int64_t inputs, operand *to)
{
    if (tokens < BLOCK_TOKENS)
        memset(to, 0, sizeof(operand) * BLOCK_TOKENS * (size_t)inputs);
    for (int64_t m = 0; m < tokens; m++)
        for (int64_t k = 0; k < inputs; k += 2)
            memcpy(to + k * BLOCK_TOKENS + 2 * m, x + m * inputs + k, 2 * sizeof(operand));
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
    for (int t = 0; t < BLOCK_TOKENS; t += 4) {
        four a = load_four(x + t), b = load_four(x + BLOCK_TOKENS + t), c = load_four(x + 2 * BLOCK_TOKENS + t),
             d = load_four(x + 3 * BLOCK_TOKENS + t);
        four ac = shuffle_four(a, c, 0, 4, 1, 5), AC = shuffle_four(a, c, 2, 6, 3, 7);
        four bd = shuffle_four(b, d, 0, 4, 1, 5), BD = shuffle_four(b, d, 2, 6, 3, 7);
        store_four(y + t * stride, shuffle_four(ac, bd, 0, 4, 1, 5));
        store_four(y + (t + 1) * stride, shuffle_four(ac, bd, 2, 6, 3, 7));
        store_four(y + (t + 2) * stride, shuffle_four(AC, BD, 0, 4, 1, 5));
        store_four(y + (t + 3) * stride, shuffle_four(AC, BD, 2, 6, 3, 7));
    }
}

#endif
