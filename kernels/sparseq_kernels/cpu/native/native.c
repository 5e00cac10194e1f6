/* What surrounds an int8 matrix product on the CPU, each in one pass over memory: quantizing its input by row, also after
 * LayerNorm, scaling its int32 sums, dequantizing for the backward. The numbers are numerics.py's; plain C, which compilers vectorize.
 *
 * Flags matter: no -ffast-math, for NaN must be seen; rintf rounds half to even in the default mode. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define ZERO_BELOW 0x1p-100f
#define PARALLEL_FROM 16384 /* elements: below it, starting threads costs more than the work */

/* Masks hold 0 or 1, and are applied as bits: branches would keep the loops from being vectorized. */

/* max|x| of a row as the bits of a float: for non-negative floats the order of bits is that of values, and NaN lies above
 * Inf, so that anything from 0x7f800000 on is not finite. */
static inline uint32_t row_max_bits(const float *x, const uint8_t *mask, int64_t columns)
{
    uint32_t largest = 0;
    for (int64_t k = 0; k < columns; k++) {
        uint32_t bits;
        memcpy(&bits, &x[k], 4);
        bits &= 0x7fffffffu;
        if (mask)
            bits &= -(uint32_t)mask[k];
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

static inline void quantize_row(const float *x, const uint8_t *mask, int64_t columns, float inverse, float limit, int8_t *q)
{
    for (int64_t k = 0; k < columns; k++) {
        float v = rintf(x[k] * inverse);
        v = v < -limit ? -limit : v;
        v = v > limit ? limit : v;
        int32_t level = (int32_t)v;
        if (mask)
            level &= -(int32_t)mask[k];
        q[k] = (int8_t)level;
    }
}

/* q [columns] and *scale of one row; `mask` may be NULL. */
static inline void quantize_one(const float *row, const uint8_t *kept, int64_t columns, int32_t limit, int8_t *q, float *scale)
{
    uint32_t bits = kept ? row_max_bits(row, kept, columns) : row_max_bits(row, NULL, columns);
    float largest;
    memcpy(&largest, &bits, 4);
    if (bits >= 0x7f800000u) {
        *scale = NAN;
        memset(q, 0, (size_t)columns);
        return;
    }
    *scale = largest < ZERO_BELOW ? 1.0f : largest / (float)limit;
    float inverse = 1.0f / *scale;
    if (kept)
        quantize_row(row, kept, columns, inverse, (float)limit, q);
    else
        quantize_row(row, NULL, columns, inverse, (float)limit, q);
}

/* q [rows, columns] and scale [rows]; x in rows of `columns` contiguous floats, zero where `mask` (may be NULL) is. */
void sparseq_quantize_rows(const float *x, const uint8_t *mask, int64_t rows, int64_t columns, int32_t limit, int8_t *q,
                           float *scale)
{
#pragma omp parallel for schedule(static) if (rows * columns >= PARALLEL_FROM)
    for (int64_t m = 0; m < rows; m++)
        quantize_one(x + m * columns, mask ? mask + m * columns : NULL, columns, limit, q + m * columns, scale + m);
}

/* Sums are of LANES parts, for the compiler may not change the order of one sum, and so would not vectorize it. */
#define LANES 16

static inline float total_of(const float *parts)
{
    float total = 0;
    for (int j = 0; j < LANES; j++)
        total += parts[j];
    return total;
}

static inline float mean_of(const float *row, int64_t columns)
{
    float parts[LANES] = {0};
    int64_t k = 0;
    for (; k + LANES <= columns; k += LANES)
        for (int j = 0; j < LANES; j++)
            parts[j] += row[k + j];
    for (; k < columns; k++)
        parts[0] += row[k];
    return total_of(parts) / (float)columns;
}

static inline float variance_of(const float *row, int64_t columns, float mean)
{
    float parts[LANES] = {0};
    int64_t k = 0;
    for (; k + LANES <= columns; k += LANES)
        for (int j = 0; j < LANES; j++) {
            float off = row[k + j] - mean;
            parts[j] += off * off;
        }
    for (; k < columns; k++) {
        float off = row[k] - mean;
        parts[0] += off * off;
    }
    return total_of(parts) / (float)columns;
}

/* y = layer_norm(x + residual) by row, and its q and scale as sparseq_quantize_rows has them; residual may be NULL. */
void sparseq_layer_norm_quantize_rows(const float *x, const float *residual, const float *weight, const float *bias, float eps,
                                      int64_t rows, int64_t columns, int32_t limit, int8_t *q, float *scale, float *y)
{
#pragma omp parallel for schedule(static) if (rows * columns >= PARALLEL_FROM)
    for (int64_t m = 0; m < rows; m++) {
        const float *from = x + m * columns, *added = residual ? residual + m * columns : NULL;
        float *to = y + m * columns;
        if (added)
            for (int64_t k = 0; k < columns; k++)
                to[k] = from[k] + added[k];
        else
            memcpy(to, from, sizeof(float) * (size_t)columns);
        float mean = mean_of(to, columns);
        float inverse = 1.0f / sqrtf(variance_of(to, columns, mean) + eps);
        for (int64_t k = 0; k < columns; k++)
            to[k] = (to[k] - mean) * inverse * weight[k] + bias[k];
        quantize_one(to, NULL, columns, limit, q + m * columns, scale + m);
    }
}

/* y = acc * input_scale[m] * weight_scale[n] + bias[n], in that order; input_stride 0 is one scale for all rows, bias may
 * be NULL. */
void sparseq_scale_sums(const int32_t *acc, int64_t rows, int64_t columns, const float *input_scale, int64_t input_stride,
                        const float *weight_scale, const float *bias, float *y)
{
#pragma omp parallel for schedule(static) if (rows * columns >= PARALLEL_FROM)
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
void sparseq_dequantize_rows(const int8_t *q, int64_t rows, int64_t columns, const float *scale, float *y)
{
#pragma omp parallel for schedule(static) if (rows * columns >= PARALLEL_FROM)
    for (int64_t m = 0; m < rows; m++)
        for (int64_t k = 0; k < columns; k++)
            y[m * columns + k] = (float)q[m * columns + k] * scale[m];
}

/* y [n] = x where the mask is set, 0 elsewhere; y may be x. */
void sparseq_mask(const float *x, const uint8_t *mask, int64_t n, float *y)
{
#pragma omp parallel for schedule(static) if (n >= PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++)
        y[i] = mask[i] ? x[i] : 0.0f;
}
