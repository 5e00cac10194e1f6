/* y = act(x w^T * scales + bias) of rows that are quantized to int8, on a team of threads. */
#ifndef SPARSEQ_LINEAR_H
#define SPARSEQ_LINEAR_H

#include "few_rows.h"
#include "narrow.h"
#include "team.h"

#define LIMIT 127.0f /* of a quantized value */

enum activation { NONE, RELU, GELU };

/* The weight is in panels, or in blocks where that is NULL. scale and bias have a whole panel's columns at the end.
 * static_scale: of x; 0 where each row has its own. */
struct linear {
    const int8_t *panels;
    struct blocks blocks;
    const float *scale, *bias;
    int64_t outputs, inputs;
    float static_scale;
    int32_t activation;
};

/* Quantized rows as they are, [tokens][block_depth], and transposed for blocks; the scale of each, of whole parts. */
struct rows {
    operand *values, *transposed;
    float *scales;
};

/* How many operands and floats `rows` have. */
INLINE int64_t values_of_rows(int64_t tokens, int64_t inputs) { return tokens * block_depth(inputs); }
INLINE int64_t transposed_of_rows(int64_t tokens, int64_t inputs) { return parts_of(tokens) * part_size(inputs); }
INLINE int64_t scales_of_rows(int64_t tokens) { return parts_of(tokens) * BLOCK_TOKENS; }

/* The rows' values, transposed where `by` has blocks and there are many rows. */
static void transpose(const struct team *team, int64_t tokens, const struct linear *by, struct rows *rows)
{
    int64_t first, end, depth = block_depth(by->inputs);
    wait_for_all(team);
    if (by->panels || tokens <= FEW_TOKENS)
        return;
    share(team, parts_of(tokens), &first, &end);
    for (int64_t p = first; p < end; p++) {
        int64_t m = p * BLOCK_TOKENS, count = tokens - m < BLOCK_TOKENS ? tokens - m : BLOCK_TOKENS;
        transpose_groups(rows->values + m * depth, count, depth, depth, rows->transposed + p * part_size(by->inputs));
        /* What was there may be slow to multiply by: a number below the least normal one. */
        for (int64_t t = count; t < BLOCK_TOKENS; t++)
            rows->scales[m + t] = 0.0f;
    }
    wait_for_all(team);
}

/* Row m of what `by` multiplies, quantized by its own scale or by the static one. */
static void quantize_input(const float *row, int64_t m, const struct linear *by, struct rows *rows)
{
    int64_t columns = by->inputs, depth = block_depth(columns);
    operand *to = rows->values + m * depth;
    rows->scales[m] = by->static_scale;
    if (by->static_scale > 0.0f)
        quantize_values(row, NULL, columns, 1.0f / by->static_scale, LIMIT, FORM, to);
    else
        rows->scales[m] = quantize_row(row, NULL, columns, LIMIT, FORM, to);
    memset(to + columns, 0, sizeof(operand) * (size_t)(depth - columns)); /* Their weights are zero. */
}

/* The same, of a row that is quantized already. */
static void copy_quantized(const int8_t *row, float scale, int64_t m, const struct linear *by, struct rows *rows)
{
    int64_t columns = by->inputs, depth = block_depth(columns);
    operand *to = rows->values + m * depth;
    rows->scales[m] = scale;
    for (int64_t k = 0; k < columns; k++)
        to[k] = (operand)(FORM == OFFSET_BYTES ? row[k] + OFFSET : row[k]);
    memset(to + columns, 0, sizeof(operand) * (size_t)(depth - columns));
}

/* What a layer multiplies, [tokens, inputs]: x, or quantized rows and the scale of each where x is NULL. */
struct input {
    const float *x;
    const int8_t *quantized;
    const float *scales;
};

/* `count` rows of an input, from `from` on, quantized. */
static void quantize(const struct team *team, const struct input *input, int64_t from, int64_t count,
                     const struct linear *by, struct rows *rows)
{
    int64_t first, end;
    share(team, count, &first, &end);
    for (int64_t m = first; m < end; m++)
        if (input->x)
            quantize_input(input->x + (from + m) * by->inputs, m, by, rows);
        else
            copy_quantized(input->quantized + (from + m) * by->inputs, input->scales[from + m], m, by, rows);
    transpose(team, count, by, rows);
}

INLINE floats activated(floats x, const int activation)
{
    return activation == GELU ? gelu(x) : activation == RELU ? relu(x) : x;
}

/* `rows` of a panel's sums, scaled, to y. The first `columns` of them are outputs. */
INLINE void scale_sums(const int32_t *sums, int64_t rows, const float *row_scales, const float *scale, const float *bias,
                       const int activation, int64_t columns, float *y, int64_t stride)
{
    for (int64_t r = 0; r < rows; r++, y += stride) {
        float last[COLUMNS], *to = columns == COLUMNS ? y : last;
#pragma GCC unroll 4
        for (int v = 0; v < COLUMNS; v += WIDTH) {
            floats found = load_converted(sums + r * COLUMNS + v) * all(row_scales[r]);
            store(to + v, activated(found * load(scale + v) + load(bias + v), activation));
        }
        if (to == last)
            memcpy(y, last, sizeof(float) * (size_t)columns);
    }
}

static void scale_tile(const int32_t *sums, int64_t rows, const float *row_scales, const struct linear *by, int64_t column,
                       float *y)
{
    const float *scale = by->scale + column, *bias = by->bias + column;
    int64_t left = by->outputs - column, columns = left < COLUMNS ? left : COLUMNS;
    y += column;
    if (by->activation == GELU)
        scale_sums(sums, rows, row_scales, scale, bias, GELU, columns, y, by->outputs);
    else if (by->activation == RELU)
        scale_sums(sums, rows, row_scales, scale, bias, RELU, columns, y, by->outputs);
    else
        scale_sums(sums, rows, row_scales, scale, bias, NONE, columns, y, by->outputs);
}

#define LINE 16 /* floats of a cache line */

/* The team shares tiles, not panels: of a narrow weight there are too few. One after the other they are of one panel. */
static void multiply_panels(const struct team *team, const struct linear *by, int64_t tokens, const struct rows *rows,
                            float *y)
{
    int64_t first, end, depth = block_depth(by->inputs), tiles = (tokens + TILE_ROWS - 1) / TILE_ROWS;
    int64_t narrow = is_narrow(by->outputs, by->inputs) ? panels_of(by->outputs) - 1 : -1;
    share(team, panels_of(by->outputs) * tiles, &first, &end);
    for (int64_t i = first; i < end; i++) {
        int64_t p = i / tiles, m = i % tiles * TILE_ROWS, count = tokens - m < TILE_ROWS ? tokens - m : TILE_ROWS;
        const int8_t *panel = by->panels + p * panel_bytes(by->inputs);
        int32_t sums[TILE_ROWS * COLUMNS];
        int64_t left = by->outputs - p * COLUMNS, columns = left < COLUMNS ? left : COLUMNS;
        /* Results come from memory while their sums are made. */
        for (int64_t r = 0; r < count; r++)
            for (int64_t n = 0; n < columns; n += LINE)
                __builtin_prefetch(y + (m + r) * by->outputs + p * COLUMNS + n, 1);
        if (p == narrow)
            narrow_tile(by->outputs - p * COLUMNS, count, rows->values + m * depth, depth, panel, padded_depth(by->inputs), sums);
        else
            tile_of_rows(count, rows->values + m * depth, depth, panel, padded_depth(by->inputs), sums);
        scale_tile(sums, count, rows->scales + m, by, p * COLUMNS, y + m * by->outputs);
    }
}

/* `sums` of BLOCK outputs, for so many lanes of tokens, scaled. */
INLINE void scale_block(const int32_t *sums, int64_t lanes, const float *row_scales, const float *scale, const float *bias,
                        const int activation, float *to)
{
    for (int i = 0; i < BLOCK; i++)
        for (int64_t t = 0; t < lanes; t += WIDTH) {
            floats found = load_converted(sums + i * BLOCK_TOKENS + t) * load(row_scales + t) * all(scale[i]);
            store(to + i * BLOCK_TOKENS + t, activated(found + all(bias[i]), activation));
        }
}

/* A part's rows of y, LINE outputs at a time: rows are apart by steps of which few stay in the first-level cache, so that
 * each line is written whole and once. */
static void multiply_blocks(const struct team *team, const struct linear *by, int64_t tokens, const struct rows *rows,
                            float *y)
{
    int64_t first, end;
    share(team, (by->outputs + LINE - 1) / LINE, &first, &end);
    for (int64_t p = 0; p < parts_of(tokens); p++)
        for (int64_t l = first; l < end; l++) {
            int64_t m = p * BLOCK_TOKENS, count = tokens - m < BLOCK_TOKENS ? tokens - m : BLOCK_TOKENS;
            int64_t lanes = lanes_of(count), left = by->outputs - l * LINE, outputs = left < LINE ? left : LINE;
            const operand *x = rows->transposed + p * part_size(by->inputs);
            const float *row_scales = rows->scales + m;
            int32_t sums[BLOCK * BLOCK_TOKENS];
            float found[BLOCK * BLOCK_TOKENS], lines[BLOCK_TOKENS * LINE];
            float *to = y + m * by->outputs + l * LINE;
            for (int64_t t = 0; t < count; t++)
                __builtin_prefetch(to + t * by->outputs, 1);
            for (int64_t i = 0; i < outputs; i += BLOCK) {
                int64_t n = l * LINE + i;
                block_tile_of_tokens(count, x, &by->blocks, n / BLOCK, sums);
                if (by->activation == GELU)
                    scale_block(sums, lanes, row_scales, by->scale + n, by->bias + n, GELU, found);
                else if (by->activation == RELU)
                    scale_block(sums, lanes, row_scales, by->scale + n, by->bias + n, RELU, found);
                else
                    scale_block(sums, lanes, row_scales, by->scale + n, by->bias + n, NONE, found);
                transpose_outputs(found, lanes, lines + i, LINE);
            }
            /* Of a size that the compiler knows a copy is one instruction. */
            for (int64_t t = 0; t < count; t++, to += by->outputs)
                if (outputs == LINE)
                    memcpy(to, lines + t * LINE, sizeof(float) * LINE);
                else
                    memcpy(to, lines + t * LINE, sizeof(float) * (size_t)outputs);
        }
}

/* Of at most FEW_TOKENS. */
static void multiply_few_by_blocks(const struct team *team, const struct linear *by, int64_t tokens, const struct rows *rows,
                                   float *y)
{
    int64_t first, end;
    share(team, panels_of(by->outputs), &first, &end);
    for (int64_t p = first; p < end; p++) {
        int64_t groups = (by->outputs + BLOCK - 1) / BLOCK, g = p * COLUMNS / BLOCK;
        int32_t sums[FEW_TOKENS * COLUMNS];
        for (int64_t n = 0; n < COLUMNS && g < groups; n += BLOCK, g++)
            block_rows_of(tokens, rows->values, block_depth(by->inputs), &by->blocks, g, sums + n);
        scale_tile(sums, tokens, rows->scales, by, p * COLUMNS, y);
    }
}

/* y [tokens, outputs] of the quantized rows. */
static void multiply(const struct team *team, const struct linear *by, int64_t tokens, const struct rows *rows, float *y)
{
    if (by->panels)
        multiply_panels(team, by, tokens, rows, y);
    else if (tokens <= FEW_TOKENS)
        multiply_few_by_blocks(team, by, tokens, rows, y);
    else
        multiply_blocks(team, by, tokens, rows, y);
    wait_for_all(team);
}

#endif
