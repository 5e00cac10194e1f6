/* The products of a linear layer's backward: floats times integers that stand for scaled floats.
 *
 * The depth is taken in parts. Of each, the integers become floats in panels of two vectors of columns, which all threads
 * read. A thread copies, and scales, a block of rows into its second-level cache, and multiplies it by panel after panel. */
#include <stdlib.h>

#include "float_products.h"
#include "team.h"

#define MOST_DEPTH 512               /* of a part */
#define PANEL (2 * WIDTH)            /* columns */
#define FILLED 4                     /* panels at most that are filled at a time, so that whole cache lines are read */
#define BLOCK_ROWS (16 * FLOAT_ROWS) /* that a thread copies at a time */
#define RUNS 4                       /* for each thread, of blocks and panels: the last to end does not end late */
#define ALIGNED 64                   /* bytes: a load that crosses a cache line counts as two */
#define PARALLEL_FROM 262144         /* products: below it, starting threads costs more than the work */

/* y [rows, columns] = the sum over d of a (r, d) scale [d] b [d, columns]. a (r, d) is a [r * row + d * step], and one of row
 * and step is 1. */
struct product {
    const float *a, *scale;
    int64_t row, step;
    const int8_t *b;
    int64_t rows, depth, columns;
    float *y;
};

/* Of FLOAT_ROWS rows EIGHT are copied: what is stored past them is overwritten by what follows, or lies past all. */
#define EIGHT 8
#define TOGETHER (FLOAT_ROWS == EIGHT ? 2 : 1)
#define BLOCK_FLOATS (BLOCK_ROWS * MOST_DEPTH + ALIGNED)
typedef float eight __attribute__((vector_size(4 * EIGHT)));
typedef float unaligned_eight __attribute__((vector_size(4 * EIGHT), aligned(4), may_alias));

/* Where the values of a row are neighbours (`step` is 1), its copy is one of [rows][MOST_DEPTH]. */
static void copy_rows(const struct product *by, int64_t first, int64_t count, int64_t from, int64_t depth, float *to)
{
    const float *a = by->a + first * by->row + from, *scale = by->scale + from;
    for (int64_t r = 0; r < count; r++, a += by->row, to += MOST_DEPTH)
        for (int64_t d = 0; d < depth; d++)
            to[d] = a[d] * scale[d];
}

/* Where those of a step are (`row` is 1), the copy is one of [rows / FLOAT_ROWS][depth][FLOAT_ROWS], written TOGETHER of
 * the first at a time: they share the cache lines that are read. totals [count], or NULL: what is copied, without its
 * scale, is added to them. */
static void copy_steps(const struct product *by, int64_t first, int64_t count, int64_t from, int64_t depth, float *to,
                       float *totals)
{
    const float *scale = by->scale + from;
    for (int64_t r = 0; r < count; r += TOGETHER * FLOAT_ROWS, to += TOGETHER * depth * FLOAT_ROWS) {
        const float *a = by->a + first + r + from * by->step;
        int64_t left = by->rows - first - r, some = count - r < TOGETHER * FLOAT_ROWS ? count - r : TOGETHER * FLOAT_ROWS;
        float total[TOGETHER * EIGHT] = {0};
        if (left >= TOGETHER * EIGHT) {
            eight sums[TOGETHER] = {{0}};
            for (int64_t d = 0; d < depth; d++, a += by->step)
#pragma GCC unroll 2
                for (int t = 0; t < TOGETHER; t++) {
                    eight value = *(const unaligned_eight *)(a + t * FLOAT_ROWS);
                    sums[t] += value;
                    *(unaligned_eight *)(to + (t * depth + d) * FLOAT_ROWS) = value * scale[d];
                }
            for (int t = 0; t < TOGETHER; t++)
                *(unaligned_eight *)(total + t * FLOAT_ROWS) = sums[t];
        } else
            for (int64_t d = 0; d < depth; d++, a += by->step)
                for (int64_t i = 0; i < some; i++) {
                    total[i] += a[i];
                    to[(i / FLOAT_ROWS * depth + d) * FLOAT_ROWS + i % FLOAT_ROWS] = a[i] * scale[d];
                }
        for (int64_t i = 0; totals && i < some; i++)
            totals[r + i] += total[i];
    }
}

/* b [depth][stride] as floats: of so many `columns` panels [depth][PANEL], with zeros past the last column. */
static void fill_panels(const int8_t *b, int64_t stride, int64_t depth, int64_t columns, float *to)
{
    for (int64_t d = 0; d < depth; d++, b += stride, to += PANEL) {
        float *panel = to;
        int64_t n = 0;
        for (; n + PANEL <= columns; n += PANEL, panel += depth * PANEL)
#pragma GCC unroll 2
            for (int v = 0; v < PANEL; v += WIDTH)
                store(panel + v, load_bytes(b + n + v));
        if (n < columns)
            for (int i = 0; i < PANEL; i++)
                panel[i] = n + i < columns ? (float)b[n + i] : 0.0f;
    }
}

typedef void tile_function(const float *a, const float *b, int64_t depth, int more, float *to, int64_t to_stride);
#define TILES_OF(rows)                                                                                                 \
    static __attribute__((noinline)) void row_tile_##rows(const float *a, const float *b, int64_t depth, int more,     \
                                                          float *to, int64_t to_stride)                                \
    {                                                                                                                  \
        float_tile(0, rows, 2, a, MOST_DEPTH, 1, b, PANEL, depth, more, to, to_stride);                                      \
    }                                                                                                                  \
    static __attribute__((noinline)) void step_tile_##rows(const float *a, const float *b, int64_t depth, int more,    \
                                                           float *to, int64_t to_stride)                               \
    {                                                                                                                  \
        float_tile(0, rows, 2, a, 1, FLOAT_ROWS, b, PANEL, depth, more, to, to_stride);                                \
    }
#define TILES_NAMED(rows) {row_tile_##rows, step_tile_##rows},
OF_EACH_ROWS(TILES_OF)
static tile_function *const tiles[FLOAT_ROWS][2] = {OF_EACH_ROWS(TILES_NAMED)};

/* Adds to y, or writes it: `count` copied rows, from `first` on, times a panel, from column n on. */
static void multiply_panel(const struct product *by, const float *rows, int64_t first, int64_t count, const float *panel,
                           int64_t n, int64_t depth, int more)
{
    int64_t left = by->columns - n, row_floats = by->row == 1 ? depth : MOST_DEPTH;
    for (int64_t r = 0; r < count; r += FLOAT_ROWS) {
        int64_t some = count - r < FLOAT_ROWS ? count - r : FLOAT_ROWS;
        tile_function *tile = tiles[some - 1][by->row == 1];
        float *to = by->y + (first + r) * by->columns + n, last[FLOAT_ROWS * PANEL];
        if (left >= PANEL) {
            /* Read at the end of the tile, when they are there. */
            for (int64_t i = 0; i < some; i++) {
                __builtin_prefetch(to + i * by->columns, 1);
                __builtin_prefetch(to + i * by->columns + PANEL - 1, 1);
            }
            tile(rows + r * row_floats, panel, depth, more, to, by->columns);
            continue;
        }
        tile(rows + r * row_floats, panel, depth, 0, last, PANEL);
        for (int64_t i = 0; i < some; i++, to += by->columns)
            for (int64_t k = 0; k < left; k++)
                to[k] = more ? to[k] + last[i * PANEL + k] : last[i * PANEL + k];
    }
}

/* In how many runs each block meets the panels: of few blocks in so many that every thread has RUNS, and each as many. */
static int64_t runs_of(int64_t blocks, int64_t panels, int32_t threads)
{
    int64_t runs = 1, few = RUNS * threads;
    while (threads > 1 && runs < panels && (blocks * runs < few || (blocks < 2 * few && blocks * runs % threads)))
        runs++;
    return runs;
}

/* The product, and totals [rows], unless NULL: of each row of a, where `row` is 1. Returns 0, or 1 where there is no
 * memory. */
int sparseq_scaled_product(const float *a, int64_t row, int64_t step, const float *scale, const int8_t *b, int64_t rows,
                           int64_t depth, int64_t columns, float *y, float *totals, int32_t threads)
{
    struct product by = {a, scale, row, step, b, rows, depth, columns, y};
    int64_t panels = (columns + PANEL - 1) / PANEL, blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    if (totals)
        memset(totals, 0, sizeof(float) * (size_t)rows);
    if (!depth)
        memset(y, 0, sizeof(float) * (size_t)(rows * columns));
    if (!rows || !depth)
        return 0;
    if (rows * depth * columns < PARALLEL_FROM)
        threads = 1;
    int64_t runs = runs_of(blocks, panels, threads), parts = (depth + MOST_DEPTH - 1) / MOST_DEPTH;
    int64_t most = (depth + parts - 1) / parts;
    int64_t filled = panels < FILLED * threads ? panels / threads + 1 : FILLED;
    size_t floats_of_panels = (size_t)(panels * PANEL * most + ALIGNED) / ALIGNED * ALIGNED;
    float *packed = aligned_alloc(ALIGNED, sizeof(float) * (floats_of_panels + (size_t)threads * BLOCK_FLOATS));
    if (!packed)
        return 1;
#pragma omp parallel num_threads(threads)
    {
        float *own = packed + floats_of_panels + (size_t)omp_get_thread_num() * BLOCK_FLOATS;
        for (int64_t d = 0; d < depth; d += most) {
            int64_t part = depth - d < most ? depth - d : most, held = -1;
#pragma omp for schedule(static)
            for (int64_t p = 0; p < panels; p += filled) {
                int64_t left = columns - p * PANEL;
                fill_panels(b + d * columns + p * PANEL, columns, part, left < filled * PANEL ? left : filled * PANEL,
                            packed + p * PANEL * part);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < blocks * runs; i++) {
                int64_t run = i % runs, first = i / runs * BLOCK_ROWS;
                int64_t count = rows - first < BLOCK_ROWS ? rows - first : BLOCK_ROWS;
                /* Whoever has the first run adds to the totals, also if a later run of the block was his before. */
                if (row == 1 && (first != held || !run))
                    copy_steps(&by, first, count, d, part, own, totals && !run ? totals + first : NULL);
                else if (row != 1 && first != held)
                    copy_rows(&by, first, count, d, part, own);
                held = first;
                for (int64_t p = panels * run / runs; p < panels * (run + 1) / runs; p++)
                    multiply_panel(&by, own, first, count, packed + p * PANEL * part, p * PANEL, part, d > 0);
            }
        }
    }
    free(packed);
    return 0;
}
