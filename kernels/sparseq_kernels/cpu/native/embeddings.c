/* What enters an encoder: the tokens of a batch that are not padding, and their embeddings.
 *
 * Sums run in the order of the layers that they stand for, and no table is read outside of its rows. */
#include "layer_norm.h"

/* Rows of `columns` values of `bits` bits: 32, floats, where `scale` is NULL; otherwise integers with a scale for each
 * row, 8, int8, or 4, two to a byte, the lower one first. values is NULL where there is no table. */
struct table {
    const void *values;
    const float *scale;
    int64_t rows, bits;
};

/* x = norm(word[id] + type[type id] + position[its number]). Tokens are numbered from 0, where `padding` is negative, and
 * otherwise from padding + 1, without those whose id is `padding`: their number is `padding`. */
struct embeddings {
    struct table word, type, position;
    struct norm norm;
    int64_t columns, padding;
};

/* Whether an element of a mask, of 1 or 8 bytes, is set. */
static int is_set(const void *mask, int32_t bytes, int64_t i)
{
    return bytes == 1 ? ((const uint8_t *)mask)[i] != 0 : ((const int64_t *)mask)[i] != 0;
}

/* The tokens that a mask [batch, length] keeps: their places in it, which may take batch * length elements, and in
 * starts [batch + 1] the number of tokens before each sequence, and that of all. All tokens where the mask is NULL. Returns
 * that of all, or -1 where the first token of a sequence is left out. */
int64_t sparseq_list_tokens(const void *mask, int32_t bytes, int64_t batch, int64_t length, int64_t *starts, int64_t *places)
{
    int64_t tokens = 0;
    for (int64_t b = 0; b < batch; b++) {
        starts[b] = tokens;
        for (int64_t i = b * length; i < (b + 1) * length; i++)
            if (!mask || is_set(mask, bytes, i))
                places[tokens++] = i;
            else if (i == b * length)
                return -1;
    }
    starts[batch] = tokens;
    return tokens;
}

/* The numbers of all tokens of a batch, [batch, length]. Returns 0, or 1 if any of them or any id is in no table's rows. */
static int number_tokens(const struct embeddings *by, const int64_t *ids, const int64_t *types, int64_t batch,
                         int64_t length, int64_t *numbers)
{
    int outside = 0;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = b * length, seen = 0; i < (b + 1) * length; i++) {
            int64_t number = i - b * length;
            if (by->padding >= 0)
                number = ids[i] == by->padding ? by->padding : by->padding + ++seen;
            numbers[i] = number;
            outside |= ids[i] < 0 || ids[i] >= by->word.rows || number >= by->position.rows;
            outside |= types && (types[i] < 0 || types[i] >= by->type.rows);
        }
    return outside;
}

/* The value in the lower four bits, in two's complement. */
INLINE float nibble(uint8_t bits)
{
    return (float)((bits & 7) - (bits & 8));
}

/* to = the row, or to += the row. */
INLINE void take_row(const struct table *table, int64_t row, int64_t columns, int add, float *to)
{
    if (table->bits == 4) {
        const uint8_t *from = (const uint8_t *)table->values + row * ((columns + 1) / 2);
        float scale = table->scale[row];
        for (int64_t k = 0; k < columns / 2; k++) {
            to[2 * k] = (add ? to[2 * k] : 0.0f) + nibble(from[k]) * scale;
            to[2 * k + 1] = (add ? to[2 * k + 1] : 0.0f) + nibble(from[k] >> 4) * scale;
        }
        if (columns % 2)
            to[columns - 1] = (add ? to[columns - 1] : 0.0f) + nibble(from[columns / 2]) * scale;
    } else if (table->bits == 8) {
        const int8_t *from = (const int8_t *)table->values + row * columns;
        float scale = table->scale[row];
        for (int64_t k = 0; k < columns; k++)
            to[k] = (add ? to[k] : 0.0f) + (float)from[k] * scale;
    } else {
        const float *from = (const float *)table->values + row * columns;
        for (int64_t k = 0; k < columns; k++)
            to[k] = (add ? to[k] : 0.0f) + from[k];
    }
}

/* x [tokens, columns] of the tokens at these places of a batch. ids and types [batch, length]; types may be NULL, for zeros. numbers [batch, length] is room. Returns 0, or 1, with x as it was, where
 * any token of the batch is in no table's rows. */
int sparseq_embed(const struct embeddings *by, const int64_t *ids, const int64_t *types, int64_t batch, int64_t length,
                  const int64_t *places, int64_t tokens, int64_t *numbers, float *x, int32_t threads)
{
    if (number_tokens(by, ids, types, batch, length, numbers))
        return 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (tokens * by->columns >= PARALLEL_ELEMENTS)
    for (int64_t t = 0; t < tokens; t++) {
        int64_t place = places[t];
        float *to = x + t * by->columns;
        take_row(&by->word, ids[place], by->columns, 0, to);
        if (by->type.values)
            take_row(&by->type, types ? types[place] : 0, by->columns, 1, to);
        take_row(&by->position, numbers[place], by->columns, 1, to);
        layer_norm_row(to, NULL, by->columns, &by->norm, to);
    }
    return 0;
}

/* to [count, columns]: x [tokens, columns] at these places, and zeros elsewhere. x may be where `to` is, for no token's
 * place is before it. */
void sparseq_spread(const float *x, const int64_t *places, int64_t tokens, int64_t count, int64_t columns, float *to)
{
    size_t size = sizeof(float) * (size_t)columns;
    int64_t t = tokens - 1;
    for (int64_t i = count - 1; i >= 0; i--)
        if (t >= 0 && places[t] == i)
            memmove(to + i * columns, x + t-- * columns, size);
        else
            memset(to + i * columns, 0, size);
}
