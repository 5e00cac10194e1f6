/* softmax(q k^T * scale) v of one head of one sequence, in fp32. */
#ifndef SPARSEQ_ATTENTION_H
#define SPARSEQ_ATTENTION_H

#include "vector.h"

#define FLOAT_ROWS (WIDTH == 16 ? 8 : 6) /* So many sums, of two vectors each, as registers hold. */

INLINE int64_t padded(int64_t columns) { return (columns + WIDTH - 1) / WIDTH * WIDTH; }

/* to [rows][to_stride] = a [rows][a_stride] b [depth][b_stride], one or two vectors of columns. */
INLINE void float_tile(const int rows, const int vectors, const float *a, int64_t a_stride, const float *b,
                       int64_t b_stride, int64_t depth, float *to, int64_t to_stride)
{
    floats s[FLOAT_ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = all(0.0f);
    for (int64_t k = 0; k < depth; k++) {
        floats columns[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            columns[v] = load(b + k * b_stride + v * WIDTH);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            floats one = all(a[r * a_stride + k]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                s[r][v] = fused(one, columns[v], s[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            store(to + r * to_stride + v * WIDTH, s[r][v]);
}

typedef void float_tile_function(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t depth, float *to,
                                 int64_t to_stride);
#define FLOAT_TILE_OF(rows, vectors)                                                                                   \
    static __attribute__((noinline, unused)) void float_tile_##rows##_##vectors(                                       \
        const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t depth, float *to,                  \
        int64_t to_stride)                                                                                             \
    {                                                                                                                  \
        float_tile(rows, vectors, a, a_stride, b, b_stride, depth, to, to_stride);                                     \
    }
#define FLOAT_TILES_OF(rows) FLOAT_TILE_OF(rows, 1) FLOAT_TILE_OF(rows, 2)
#define FLOAT_TILES_NAMED(rows) {float_tile_##rows##_1, float_tile_##rows##_2}
FLOAT_TILES_OF(1)
FLOAT_TILES_OF(2)
FLOAT_TILES_OF(3)
FLOAT_TILES_OF(4)
FLOAT_TILES_OF(5)
FLOAT_TILES_OF(6)
#if WIDTH == 16
FLOAT_TILES_OF(7)
FLOAT_TILES_OF(8)
#endif
static float_tile_function *const float_tiles[FLOAT_ROWS][2] = {
    FLOAT_TILES_NAMED(1), FLOAT_TILES_NAMED(2), FLOAT_TILES_NAMED(3),
    FLOAT_TILES_NAMED(4), FLOAT_TILES_NAMED(5), FLOAT_TILES_NAMED(6),
#if WIDTH == 16
    FLOAT_TILES_NAMED(7), FLOAT_TILES_NAMED(8),
#endif
};

/* to [rows][to_stride] = a b, of `columns`, a multiple of WIDTH; at most FLOAT_ROWS rows. */
static void float_product(int64_t rows, const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t depth,
                          int64_t columns, float *to, int64_t to_stride)
{
    for (int64_t c = 0; c < columns; c += 2 * WIDTH)
        float_tiles[rows - 1][columns - c > WIDTH](a, a_stride, b + c, b_stride, depth, to + c, to_stride);
}

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
    return head_size * keys + tokens * size + FLOAT_ROWS * (keys + size);
}

/* q, k, v: [tokens][stride], of which head_size columns. to [tokens][to_stride]. scale is positive. */
static void attend(const float *q, const float *k, const float *v, int64_t stride, int64_t tokens, int64_t head_size,
                   float scale, float *to, int64_t to_stride, float *room)
{
    int64_t keys = padded(tokens), size = padded(head_size);
    float *keys_by_token = room, *values = keys_by_token + head_size * keys, *scores = values + tokens * size,
          *found = scores + FLOAT_ROWS * keys;
    transpose_floats(k, stride, tokens, head_size, keys_by_token, keys);
    for (int64_t d = 0; d < head_size; d++)
        for (int64_t s = tokens; s < keys; s++)
            keys_by_token[d * keys + s] = 0.0f;
    for (int64_t s = 0; s < tokens; s++) {
        memcpy(values + s * size, v + s * stride, sizeof(float) * (size_t)head_size);
        for (int64_t d = head_size; d < size; d++)
            values[s * size + d] = 0.0f;
    }
    for (int64_t first = 0; first < tokens; first += FLOAT_ROWS) {
        int64_t rows = tokens - first < FLOAT_ROWS ? tokens - first : FLOAT_ROWS;
        float inverse[FLOAT_ROWS];
        float_product(rows, q + first * stride, stride, keys_by_token, keys, head_size, keys, scores, keys);
        for (int64_t r = 0; r < rows; r++)
            inverse[r] = softmax(scores + r * keys, tokens, keys, scale);
        float_product(rows, scores, keys, values, size, tokens, size, found, size);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t d = 0; d < head_size; d++)
                to[(first + r) * to_stride + d] = found[r * size + d] * inverse[r];
    }
}

#endif
