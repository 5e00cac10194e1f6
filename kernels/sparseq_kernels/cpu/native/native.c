/* What surrounds an int8 matrix product on the CPU, each in one pass over memory: quantizing its input by row, scaling
 * its int32 sums, dequantizing for the backward. The numbers are numerics.py's; plain C, which compilers vectorize.
 *
 * Flags matter: no -ffast-math, for NaN must be seen. */
#include "quantize.h"

/* q [rows, columns] and scale [rows]; x in rows of `columns` contiguous floats, zero where `mask` (may be NULL) is. */
void sparseq_quantize_rows(const float *x, const uint8_t *mask, int64_t rows, int64_t columns, int32_t limit, int8_t *q,
                           float *scale, int32_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * columns >= PARALLEL_ELEMENTS)
    for (int64_t m = 0; m < rows; m++) {
        const float *row = x + m * columns;
        const uint8_t *kept = mask ? mask + m * columns : NULL;
        scale[m] = quantize_row(row, kept, columns, (float)limit, BYTES, q + m * columns);
    }
}

/* y = acc * input_scale[m] * weight_scale[n] + bias[n], in that order; input_stride 0 is one scale for all rows, bias may
 * be NULL. */
void sparseq_scale_sums(const int32_t *acc, int64_t rows, int64_t columns, const float *input_scale, int64_t input_stride,
                        const float *weight_scale, const float *bias, float *y, int32_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * columns >= PARALLEL_ELEMENTS)
    for (int64_t m = 0; m < rows; m++) {
        const int32_t *from = acc + m * columns;
        float *to = y + m * columns, scale = input_scale[m * input_stride];
        if (bias)
            for (int64_t n = 0; n < columns; n++)
                to[n] = (float)from[n] * scale * weight_scale[n] + bias[n];
        else
            for (int64_t n = 0; n < columns; n++)
                to[n] = (float)from[n] * scale * weight_scale[n];
    }
}

/* y [rows, columns] = q * scale[m]. */
void sparseq_dequantize_rows(const int8_t *q, int64_t rows, int64_t columns, const float *scale, float *y,
                             int32_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * columns >= PARALLEL_ELEMENTS)
    for (int64_t m = 0; m < rows; m++)
        for (int64_t k = 0; k < columns; k++)
            y[m * columns + k] = (float)q[m * columns + k] * scale[m];
}

/* y [n] = x where the mask is set, 0 elsewhere; y may be x. */
void sparseq_mask(const float *x, const uint8_t *mask, int64_t n, float *y, int32_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (n >= PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < n; i++)
        y[i] = mask[i] ? x[i] : 0.0f;
}
