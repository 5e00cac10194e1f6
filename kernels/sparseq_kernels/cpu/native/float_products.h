/* Tiles of products of floats, or of pairs of bf16 whose products are added in fp32. */
#ifndef SPARSEQ_FLOAT_PRODUCTS_H
#define SPARSEQ_FLOAT_PRODUCTS_H

#include "vector.h"

/* Pairs of bf16 take the place of floats: two neighbouring operands of a sum, the first one in the low half. The
 * instruction is AVX-512 BF16's; a processor with AVX-512 may lack it. */
#if WIDTH == 16 && (defined(IN_PLACE) || defined(SPARSEQ_EMULATED)) && __GNUC__ >= 10
#define HAS_PAIRS 1
#else
#define HAS_PAIRS 0
#endif

INLINE floats fused_pairs(floats a, floats b, floats c)
{
#if !HAS_PAIRS
    return fused(a, b, c);
#elif defined(SPARSEQ_EMULATED)
    return emulated_dpbf16(a, b, c);
#else
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
#endif
}

/* The bits of bf16 in the upper halves, rounded half to even; a NaN stays one. */
INLINE words rounded_to_bf16(floats x)
{
    words bits = (words)x, odd = (bits >> 16) & 1;
    return ((bits + 0x7fff + odd) | (words)(x != x)) & 0xffff0000u;
}

/* A vector in bf16, rounded half to even. The instruction takes numbers below the least normal one for zero. */
INLINE halves to_bf16(floats x)
{
#if HAS_PAIRS && defined(IN_PLACE)
    halves found;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(found) : "v"(x));
    return found;
#else
    return __builtin_convertvector(rounded_to_bf16(x) >> 16, halves);
#endif
}

/* Pairs of neighbours of x [columns], (columns + 1) / 2 of them. */
static inline void to_pairs(const float *x, int64_t columns, float *to)
{
    uint16_t *values = (uint16_t *)(void *)to;
    int64_t k = 0;
    for (; k + WIDTH <= columns; k += WIDTH) {
        halves found = to_bf16(load(x + k));
        memcpy(values + k, &found, sizeof found);
    }
    if (k < columns) {
        float rest[WIDTH] = {0};
        memcpy(rest, x + k, sizeof(float) * (size_t)(columns - k));
        halves found = to_bf16(load(rest));
        memcpy(values + k, &found, sizeof(uint16_t) * (size_t)((columns - k + 1) / 2 * 2));
    }
}

/* Pairs of one value of x with one of y. */
INLINE floats paired(floats x, floats y)
{
    return (floats)((rounded_to_bf16(x) >> 16) | rounded_to_bf16(y));
}

#define FLOAT_ROWS (WIDTH == 16 ? 8 : 6) /* So many sums, of two vectors each, as registers hold. */

INLINE int64_t padded(int64_t columns) { return (columns + WIDTH - 1) / WIDTH * WIDTH; }

/* to [rows][to_stride] = a b [depth][b_stride], one or two vectors of columns; of floats, or of pairs of bf16. The value k of
 * row r stands in a [r * a_row + k * a_step]. With `more` the product is added to what stands there. */
INLINE void float_tile(const int pairs, const int rows, const int vectors, const float *a, int64_t a_row, int64_t a_step,
                       const float *b, int64_t b_stride, int64_t depth, int more, float *to, int64_t to_stride)
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
            floats one = all(a[r * a_row + k * a_step]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                s[r][v] = pairs ? fused_pairs(one, columns[v], s[r][v]) : fused(one, columns[v], s[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            float *found = to + r * to_stride + v * WIDTH;
            store(found, more ? load(found) + s[r][v] : s[r][v]);
        }
}

typedef void float_tile_function(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t depth, float *to,
                                 int64_t to_stride);
#define FLOAT_TILE_OF(name, pairs, rows, vectors)                                                                      \
    static __attribute__((noinline, unused)) void name##_##rows##_##vectors(                                           \
        const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t depth, float *to,                  \
        int64_t to_stride)                                                                                             \
    {                                                                                                                  \
        float_tile(pairs, rows, vectors, a, a_stride, 1, b, b_stride, depth, 0, to, to_stride);                        \
    }
#if WIDTH == 16
#define OF_EACH_ROWS(do) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8)
#else
#define OF_EACH_ROWS(do) do(1) do(2) do(3) do(4) do(5) do(6)
#endif
#define FLOAT_TILES_OF(rows) FLOAT_TILE_OF(float_tile, 0, rows, 1) FLOAT_TILE_OF(float_tile, 0, rows, 2)
#define FLOAT_TILES_NAMED(rows) {float_tile_##rows##_1, float_tile_##rows##_2},
OF_EACH_ROWS(FLOAT_TILES_OF)
static float_tile_function *const float_tiles[FLOAT_ROWS][2] = {OF_EACH_ROWS(FLOAT_TILES_NAMED)};
#if HAS_PAIRS
#define PAIR_TILES_OF(rows) FLOAT_TILE_OF(pair_tile, 1, rows, 1) FLOAT_TILE_OF(pair_tile, 1, rows, 2)
#define PAIR_TILES_NAMED(rows) {pair_tile_##rows##_1, pair_tile_##rows##_2},
OF_EACH_ROWS(PAIR_TILES_OF)
static float_tile_function *const pair_tiles[FLOAT_ROWS][2] = {OF_EACH_ROWS(PAIR_TILES_NAMED)};
#endif

/* to [rows][to_stride] = a b, of `columns`, a multiple of WIDTH; at most FLOAT_ROWS rows. */
INLINE void float_product(float_tile_function *const tiles[FLOAT_ROWS][2], int64_t rows, const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t depth,
                          int64_t columns, float *to, int64_t to_stride)
{
    for (int64_t c = 0; c < columns; c += 2 * WIDTH)
        tiles[rows - 1][columns - c > WIDTH](a, a_stride, b + c, b_stride, depth, to + c, to_stride);
}

#endif
