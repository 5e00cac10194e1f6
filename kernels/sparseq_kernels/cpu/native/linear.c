/* One linear layer in one call: its input quantized, multiplied, scaled.
 *
 * Of many rows each thread takes some after the other, quantizes them into memory that stays in its caches, multiplies them
 * by the whole weight, and waits for nobody. Few rows are quantized and multiplied by all threads together. */
#include <stdlib.h>

#include "linear.h"

#define PARALLEL_FROM 524288 /* products: below it, starting threads costs more than the work */
#define QUANTIZED 16         /* products take as long as to quantize a value, */
#define SCALED 8             /* and so many as to scale a sum */
#define ROWS_APART 32        /* for each thread: from so many on, each takes rows of its own */
#define PART_BYTES 131072    /* of quantized rows: a part of the second-level cache, beside a panel and results */

/* What `tokens` rows need, in one piece of memory. */
static size_t bytes_of(int64_t tokens, const struct linear *by)
{
    int64_t operands = values_of_rows(tokens, by->inputs) + (by->panels ? 0 : transposed_of_rows(tokens, by->inputs));
    return sizeof(float) * (size_t)scales_of_rows(tokens) + sizeof(operand) * (size_t)operands;
}

static struct rows rows_in(char *memory, int64_t tokens, const struct linear *by)
{
    operand *values = (operand *)(memory + sizeof(float) * (size_t)scales_of_rows(tokens));
    return (struct rows){values, values + values_of_rows(tokens, by->inputs), (float *)memory};
}

/* `count` rows from `first` on. */
static void quantize_and_multiply(const struct team *team, const struct linear *by, const struct input *input, int64_t first,
                                  int64_t count, struct rows *rows, float *y)
{
    quantize(team, input, first, count, by, rows);
    multiply(team, by, count, rows, y + first * by->outputs);
}

/* The rows of a part: as many for each thread, in whole tiles, and no more than stay in the cache. */
static int64_t rows_of_part(int64_t tokens, const struct linear *by, int32_t threads)
{
    int64_t step = by->panels ? TILE_ROWS : BLOCK_TOKENS, row_bytes = block_depth(by->inputs) * (int64_t)sizeof(operand);
    int64_t most = PART_BYTES / row_bytes / step * step, least = (ROWS_APART + step - 1) / step * step;
    most = most < least ? least : most;
    int64_t turns = (tokens + most * threads - 1) / (most * threads);
    int64_t each = (tokens + turns * threads - 1) / (turns * threads);
    return (each + step - 1) / step * step;
}

static int run(const struct linear *by, const struct input *input, int64_t tokens, float *y, int32_t threads)
{
    if (!tokens)
        return 0;
    int64_t weights = by->panels ? by->outputs * by->inputs
                                 : by->blocks.starts[(by->outputs + BLOCK - 1) / BLOCK] * (int64_t)(BLOCK * BLOCK);
    if (tokens * (weights + QUANTIZED * by->inputs + SCALED * by->outputs) < PARALLEL_FROM)
        threads = 1;
    int apart = tokens >= ROWS_APART * threads;
    int64_t part = apart ? rows_of_part(tokens, by, threads) : tokens, parts = apart ? (tokens + part - 1) / part : 1;
    /* Of its own lines for each thread. */
    size_t bytes = (bytes_of(part, by) + 63) / 64 * 64;
    char *memory = malloc(bytes * (size_t)(apart ? threads : 1));
    if (!memory)
        return 1;
    if (apart && threads > 1) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
        for (int64_t p = 0; p < parts; p++) {
            int64_t m = p * part, count = tokens - m < part ? tokens - m : part;
            struct rows rows = rows_in(memory + bytes * (size_t)omp_get_thread_num(), part, by);
            quantize_and_multiply(&(struct team){0, 1}, by, input, m, count, &rows, y);
        }
    } else if (threads > 1) {
        struct rows rows = rows_in(memory, tokens, by);
#pragma omp parallel num_threads(threads)
        quantize_and_multiply(&(struct team){omp_get_thread_num(), omp_get_num_threads()}, by, input, 0, tokens, &rows, y);
    } else
        for (int64_t p = 0; p < parts; p++) {
            int64_t m = p * part, count = tokens - m < part ? tokens - m : part;
            struct rows rows = rows_in(memory, part, by);
            quantize_and_multiply(&(struct team){0, 1}, by, input, m, count, &rows, y);
        }
    free(memory);
    return 0;
}

/* y [tokens, outputs] = act(x w^T * scales + bias), x [tokens, inputs]. Returns 0, or 1 where there is no memory. */
int sparseq_linear(const struct linear *by, const float *x, int64_t tokens, float *y, int32_t threads)
{
    return run(by, &(struct input){.x = x}, tokens, y, threads);
}

/* The same of rows that are quantized: q [tokens, inputs], and the scale of each. */
int sparseq_linear_of_rows(const struct linear *by, const int8_t *q, const float *scales, int64_t tokens, float *y,
                           int32_t threads)
{
    return run(by, &(struct input){.quantized = q, .scales = scales}, tokens, y, threads);
}
