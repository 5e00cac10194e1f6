/* A last panel of few outputs: their weights in rows, [NARROW][row_of] from the first of its values on, so that a vector holds
 * inputs of one output and none is empty. As a panel a head of two classes would cost what one of COLUMNS does. */
#ifndef SPARSEQ_NARROW_H
#define SPARSEQ_NARROW_H

#include "panels.h"

#define NARROW 4 /* outputs; their rows fit into what a panel takes */
#define NARROW_STEP (WIDTH * GROUP)

/* Whether the last panel of so many outputs is narrow. From a depth of some vectors on, for each output ends with a sum over
 * the lanes. */
INLINE int is_narrow(int64_t outputs, int64_t inputs)
{
    int64_t columns = outputs % COLUMNS;
    return WIDTH > 4 && columns > 0 && columns <= NARROW && inputs >= 4 * NARROW_STEP;
}

#if WIDTH > 4
/* The sum over all lanes, and of what is left at the end of the depth. */
INLINE int32_t total_of(sums s, const operand *x, const block_value *w, int64_t count)
{
    int32_t lanes[WIDTH];
    uint32_t total = 0; /* It may overflow on the way, as the lanes may (panels.h). */
    store_sums(lanes, s);
    for (int i = 0; i < WIDTH; i++)
        total += (uint32_t)lanes[i];
    for (int64_t k = 0; k < count; k++)
        total += (uint32_t)(x[k] * w[k]);
    return (int32_t)total;
}

/* to [rows][COLUMNS], of which the first `columns` are written, for x [rows][stride]. */
INLINE void narrow_rows(const int columns, int64_t rows, const operand *x, int64_t stride, const int8_t *panel, int64_t depth,
                        int32_t *to)
{
    const int32_t *starts = (const int32_t *)panel;
    const block_value *w = (const block_value *)(panel + sizeof(int32_t) * COLUMNS);
    int64_t whole = depth / NARROW_STEP * NARROW_STEP;
    for (int64_t r = 0; r < rows; r++, x += stride, to += COLUMNS) {
        sums s[NARROW];
#pragma GCC unroll 4
        for (int n = 0; n < columns; n++)
            s[n] = all_sums(0);
        for (int64_t k = 0; k < whole; k += NARROW_STEP) {
            sums inputs = load_operands(x + k);
#pragma GCC unroll 4
            for (int n = 0; n < columns; n++)
                s[n] = add_products(s[n], inputs, load_operands((const operand *)(w + n * depth + k)));
        }
#pragma GCC unroll 4
        for (int n = 0; n < columns; n++)
            to[n] = (int32_t)((uint32_t)starts[n] +
                              (uint32_t)total_of(s[n], x + whole, w + n * depth + whole, depth - whole));
    }
}

static void narrow_tile(int64_t columns, int64_t rows, const operand *x, int64_t stride, const int8_t *panel, int64_t depth,
                        int32_t *to)
{
    switch (columns) {
    case 1: narrow_rows(1, rows, x, stride, panel, depth, to); break;
    case 2: narrow_rows(2, rows, x, stride, panel, depth, to); break;
    case 3: narrow_rows(3, rows, x, stride, panel, depth, to); break;
    default: narrow_rows(4, rows, x, stride, panel, depth, to);
    }
}
#else
static void narrow_tile(int64_t columns, int64_t rows, const operand *x, int64_t stride, const int8_t *panel, int64_t depth,
                        int32_t *to)
{
    (void)columns; /* No panel is narrow. */
    tile_of_rows(rows, x, stride, panel, depth, to);
}
#endif

#endif
