/* Steps of an encoder that end in quantized rows, each in one pass over memory. */
#include "layer_norm.h"
#include "quantize.h"

/* y [rows, columns] = layer_norm(x + residual), q [rows, columns] and scale [rows] of it. residual may be NULL. */
void sparseq_layer_norm_quantize_rows(const float *x, const float *residual, const float *weight, const float *bias,
                                      float epsilon, int64_t rows, int64_t columns, int32_t limit, int8_t *q, float *scale,
                                      float *y, int32_t threads)
{
    struct norm norm = {weight, bias, epsilon};
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * columns >= PARALLEL_ELEMENTS)
    for (int64_t m = 0; m < rows; m++) {
        int64_t at = m * columns;
        layer_norm_row(x + at, residual ? residual + at : NULL, columns, &norm, y + at);
        scale[m] = quantize_row(y + at, NULL, columns, (float)limit, BYTES, q + at);
    }
}

/* q [rows, columns] and scale [rows] of gelu(x); y [rows, columns] is where that is kept meanwhile. */
void sparseq_gelu_quantize_rows(const float *x, int64_t rows, int64_t columns, int32_t limit, int8_t *q, float *scale,
                                float *y, int32_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * columns >= PARALLEL_ELEMENTS)
    for (int64_t m = 0; m < rows; m++) {
        const float *from = x + m * columns;
        float *to = y + m * columns, rest[WIDTH] = {0};
        int64_t k = 0;
        for (; k + WIDTH <= columns; k += WIDTH)
            store(to + k, gelu(load(from + k)));
        memcpy(rest, from + k, sizeof(float) * (size_t)(columns - k));
        store(rest, gelu(load(rest)));
        memcpy(to + k, rest, sizeof(float) * (size_t)(columns - k));
        scale[m] = quantize_row(to, NULL, columns, (float)limit, BYTES, q + m * columns);
    }
}
