/* softmax(q k^T * scale) v of one head of one sequence, with products in fp32 or in bf16. */
#ifndef SPARSEQ_ATTENTION_H
#define SPARSEQ_ATTENTION_H

#include "float_products.h"

/* to [columns][to_stride] = x [rows][stride] transposed. */
static void transpose_floats(const float *x, int64_t stride, int64_t rows, int64_t columns, float *to, int64_t to_stride)
{
    int64_t r = 0, whole = columns - columns % 4;
    for (; r + 4 <= rows; r += 4, x += 4 * stride) {
        for (int64_t c = 0; c < whole; c += 4)
            transpose_four(x + c, stride, to + c * to_stride + r, to_stride);
        for (int64_t c = whole; c < columns; c++)
            for (int i = 0; i < 4; i++)
                to[c * to_stride + r + i] = x[i * stride + c];
    }
    for (; r < rows; r++, x += stride)
        for (int64_t c = 0; c < columns; c++)
            to[c * to_stride + r] = x[c];
}

/* The exponentials of a row of scores times `scale`, less their maximum, in place, with zeros from `count` up to `room`.
 * Returns one over their sum. */
static float softmax(float *scores, int64_t count, int64_t room, float scale)
{
    for (int64_t i = count; i < room; i++)
        scores[i] = -INFINITY;
    floats most = all(-INFINITY), sum[PARTS];
    for (int64_t c = 0; c < room; c += WIDTH)
        most = larger(load(scores + c), most);
    float lanes[WIDTH], maximum = -INFINITY;
    store(lanes, most);
    for (int i = 0; i < WIDTH; i++)
        maximum = lanes[i] > maximum ? lanes[i] : maximum;
    floats factor = all(scale * 1.44269504f), less = all(-maximum * (scale * 1.44269504f));
    for (int i = 0; i < PARTS; i++)
        sum[i] = all(0.0f);
    for (int64_t c = 0; c < room; c += LANES)
        for (int i = 0; i < PARTS && c + WIDTH * i < room; i++) {
            floats found = power_of_two(fused(load(scores + c + WIDTH * i), factor, less));
            sum[i] += found;
            store(scores + c + WIDTH * i, found);
        }
    for (int64_t i = count; i < room; i++)
        scores[i] = 0.0f;
    return 1.0f / total(sum);
}

/* Floats that `attend` needs beside its operands. */
INLINE int64_t attention_floats(int64_t tokens, int64_t head_size)
{
    int64_t keys = padded(tokens), size = padded(head_size);
    return (head_size + 1) * keys + tokens * size + FLOAT_ROWS * (keys + 2 * size);
}

/* q, k, v: [tokens][stride], of which head_size columns. to [tokens][to_stride]. scale is positive. pairs: multiply in
 * bf16. */
INLINE void attend_as(const int pairs, float_tile_function *const tiles[FLOAT_ROWS][2], const float *q, const float *k,
                      const float *v, int64_t stride, int64_t tokens, int64_t head_size, float scale, float *to,
                      int64_t to_stride, float *room)
{
    int64_t keys = padded(tokens), size = padded(head_size), depth = pairs ? (head_size + 1) / 2 : head_size;
    float *keys_by_token = room, *values = room + (head_size + 1) * keys, *scores = values + tokens * size,
          *found = scores + FLOAT_ROWS * keys, *queries = found + FLOAT_ROWS * size;
    if (pairs) {
        float *rows = keys_by_token + depth * keys;
        for (int64_t s = 0; s < tokens; s++)
            to_pairs(k + s * stride, head_size, rows + s * depth);
        transpose_floats(rows, depth, tokens, depth, keys_by_token, keys);
    } else
        transpose_floats(k, stride, tokens, depth, keys_by_token, keys);
    for (int64_t d = 0; d < depth; d++)
        for (int64_t s = tokens; s < keys; s++)
            keys_by_token[d * keys + s] = 0.0f;
    for (int64_t s = 0; s < tokens; s++) {
        float *row = values + s * size;
        memcpy(row, v + s * stride, sizeof(float) * (size_t)head_size);
        for (int64_t d = head_size; d < size; d++)
            row[d] = 0.0f;
    }
    /* In place: the pair of two rows takes the room of rows that have been read. */
    for (int64_t s = 0; pairs && s < tokens; s += 2)
        for (int64_t d = 0; d < size; d += WIDTH) {
            floats second = s + 1 < tokens ? load(values + (s + 1) * size + d) : all(0.0f);
            store(values + s / 2 * size + d, paired(load(values + s * size + d), second));
        }
    for (int64_t first = 0; first < tokens; first += FLOAT_ROWS) {
        int64_t rows = tokens - first < FLOAT_ROWS ? tokens - first : FLOAT_ROWS;
        float inverse[FLOAT_ROWS];
        const float *from = q + first * stride;
        for (int64_t r = 0; pairs && r < rows; r++)
            to_pairs(from + r * stride, head_size, queries + r * depth);
        float_product(tiles, rows, pairs ? queries : from, pairs ? depth : stride, keys_by_token, keys, depth, keys, scores,
                      keys);
        for (int64_t r = 0; r < rows; r++) {
            inverse[r] = softmax(scores + r * keys, tokens, keys, scale);
            if (pairs)
                to_pairs(scores + r * keys, keys, scores + r * keys);
        }
        float_product(tiles, rows, scores, keys, values, size, pairs ? (tokens + 1) / 2 : tokens, size, found, size);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t d = 0; d < head_size; d++)
                to[(first + r) * to_stride + d] = found[r * size + d] * inverse[r];
    }
}

static void attend(const float *q, const float *k, const float *v, int64_t stride, int64_t tokens, int64_t head_size,
                   float scale, float *to, int64_t to_stride, float *room)
{
    attend_as(0, float_tiles, q, k, v, stride, tokens, head_size, scale, to, to_stride, room);
}

#if HAS_PAIRS
static void attend_in_pairs(const float *q, const float *k, const float *v, int64_t stride, int64_t tokens,
                            int64_t head_size, float scale, float *to, int64_t to_stride, float *room)
{
    attend_as(1, pair_tiles, q, k, v, stride, tokens, head_size, scale, to, to_stride, room);
}
#endif

#endif
