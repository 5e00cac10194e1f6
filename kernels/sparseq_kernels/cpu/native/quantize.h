/* How a row of floats becomes integers and a scale; the numbers are numerics' (the package of that name). */
#ifndef SPARSEQ_QUANTIZE_H
#define SPARSEQ_QUANTIZE_H

#include "vector.h"

#define ZERO_BELOW 0x1p-100f
#define NOT_FINITE 0x7f800000u /* the bits of Inf, and above them those of NaN */

typedef int16_t shorts __attribute__((vector_size(2 * WIDTH)));

/* max|x| of a row as the bits of a float: for non-negative floats the order of bits is that of values, and NaN lies above
 * Inf. x counts as zero where `mask`, of 0 and 1, may be NULL, is 0: as bits, for branches would not be vectorized. */
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

/* The scale of a row whose largest magnitude has these bits; NaN where it is not finite. */
static inline float scale_of_bits(uint32_t bits, float limit)
{
    float largest;
    memcpy(&largest, &bits, 4);
    if (bits >= NOT_FINITE)
        return NAN;
    return largest < ZERO_BELOW ? 1.0f : largest / limit;
}

/* How integers of up to 8 bits are written: as they are, in 16 bits, or with OFFSET added, as uint8. */
enum form { BYTES, SHORTS, OFFSET_BYTES };
#define OFFSET 128

/* The integers of a row, rounded half to even and clipped to `limit`; zero where x is NaN, or where `mask` is 0. */
INLINE void quantize_values(const float *x, const uint8_t *mask, int64_t columns, float inverse, float limit,
                            const enum form form, void *to)
{
    int64_t k = 0;
    if (!mask)
        for (; k + WIDTH <= columns; k += WIDTH) {
            /* NaN passes both, and ends as a zero in the low bits. */
            ints found = rounded(smaller(all(limit), larger(all(-limit), load(x + k) * inverse)));
            if (form == SHORTS) {
                shorts values = __builtin_convertvector(found, shorts);
                memcpy((int16_t *)to + k, &values, sizeof values);
            } else {
                bytes values = __builtin_convertvector(form == OFFSET_BYTES ? found + OFFSET : found, bytes);
                memcpy((int8_t *)to + k, &values, sizeof values);
            }
        }
    for (; k < columns; k++) {
        float v = x[k] * inverse;
        v = v < -limit ? -limit : v;
        v = v > limit ? limit : v;
        v = v == v ? v : 0.0f;
        /* By this sum the value is rounded as rintf does, which not every instruction set has. */
        int32_t value = (int32_t)((v + 0x1.8p23f) - 0x1.8p23f);
        if (mask)
            value &= -(int32_t)mask[k];
        if (form == SHORTS)
            ((int16_t *)to)[k] = (int16_t)value;
        else if (form == OFFSET_BYTES)
            ((uint8_t *)to)[k] = (uint8_t)(value + OFFSET);
        else
            ((int8_t *)to)[k] = (int8_t)value;
    }
}

/* The integers of a row by its own maximum. Returns their scale; where x is not finite that is NaN, and they are zero. */
INLINE float quantize_row(const float *x, const uint8_t *mask, int64_t columns, float limit, const enum form form, void *to)
{
    float scale = scale_of_bits(mask ? row_max_bits(x, mask, columns) : row_max_bits(x, NULL, columns), limit);
    if (scale != scale)
        memset(to, form == OFFSET_BYTES ? OFFSET : 0, (size_t)columns * (form == SHORTS ? 2 : 1));
    else if (mask)
        quantize_values(x, mask, columns, 1.0f / scale, limit, form, to);
    else
        quantize_values(x, NULL, columns, 1.0f / scale, limit, form, to);
    return scale;
}

#endif
