/* LayerNorm of a row, after a residual sum. */
#ifndef SPARSEQ_LAYER_NORM_H
#define SPARSEQ_LAYER_NORM_H

#include "vector.h"

struct norm {
    const float *weight, *bias;
    float epsilon;
};

/* y = layer_norm(x + added). added may be NULL, and y may be x. */
static void layer_norm_row(const float *x, const float *added, int64_t columns, const struct norm *norm, float *y)
{
    floats sum[PARTS], squares[PARTS];
    float rest[LANES] = {0};
    int64_t whole = columns - columns % LANES;
    for (int i = 0; i < PARTS; i++)
        sum[i] = squares[i] = all(0.0f);
    for (int64_t k = 0; k < whole; k += LANES)
        for (int i = 0; i < PARTS; i++) {
            floats v = load(x + k + WIDTH * i);
            if (added)
                v += load(added + k + WIDTH * i);
            store(y + k + WIDTH * i, v);
            sum[i] += v;
        }
    for (int64_t k = whole; k < columns; k++)
        rest[k - whole] = y[k] = added ? x[k] + added[k] : x[k];
    for (int i = 0; i < PARTS; i++)
        sum[i] += load(rest + WIDTH * i);
    /* The squares of what is left of the mean: those of x itself lose digits where the mean is large. */
    float mean = total(sum) / (float)columns;
    for (int64_t k = 0; k < whole; k += LANES)
        for (int i = 0; i < PARTS; i++) {
            floats v = load(y + k + WIDTH * i) - mean;
            squares[i] += v * v;
        }
    for (int64_t k = whole; k < columns; k++)
        rest[k - whole] = (y[k] - mean) * (y[k] - mean);
    for (int i = 0; i < PARTS; i++)
        squares[i] += load(rest + WIDTH * i);
    float factor = 1.0f / sqrtf(total(squares) / (float)columns + norm->epsilon);
    for (int64_t k = 0; k < columns; k++)
        y[k] = (y[k] - mean) * factor * norm->weight[k] + norm->bias[k];
}

#endif
