/* int8 weights into the panels and blocks that products read (panels.h, narrow.h, blocks.h). Training packs a weight in every
 * step, so the threads share this too. */
#include "blocks.h"
#include "narrow.h"

#define PARALLEL_WEIGHTS 65536 /* Below it, starting threads costs more than the work. */

/* Whole groups of w [columns][inputs] into a panel's, of four columns at a time: how many are done, none if columns are left
 * over. A group has to be as large as a float. */
static int64_t fill_by_four(const int8_t *w, int64_t inputs, int64_t columns, int8_t *groups)
{
    if (GROUP != sizeof(float) || columns % 4)
        return 0;
    int64_t whole = inputs / (4 * GROUP) * 4;
    for (int64_t n = 0; n < columns; n += 4, w += 4 * inputs)
        for (int64_t k = 0; k < whole; k += 4) {
            four rows[4];
            for (int i = 0; i < 4; i++)
                memcpy(rows + i, w + i * inputs + k * GROUP, sizeof rows[i]);
            store_four_transposed(rows, (float *)(void *)(groups + (k * COLUMNS + n) * GROUP), COLUMNS);
        }
    return whole;
}

/* Panel p of w [outputs, inputs]. */
static void fill_panel(const int8_t *w, int64_t outputs, int64_t inputs, int64_t p, int8_t *to)
{
    int64_t left = outputs - p * COLUMNS, columns = left < COLUMNS ? left : COLUMNS, whole = inputs / GROUP * GROUP;
    int32_t starts[COLUMNS] = {0};
    int8_t *groups = to + sizeof starts;
    if (columns < COLUMNS)
        memset(groups, 0, (size_t)(padded_depth(inputs) * COLUMNS));
    int64_t done = fill_by_four(w + p * COLUMNS * inputs, inputs, columns, groups);
    for (int64_t n = 0; n < columns; n++) {
        const int8_t *row = w + (p * COLUMNS + n) * inputs;
        int8_t *group = groups + (done * COLUMNS + n) * GROUP, last[GROUP] = {0};
        int32_t sum = 0; /* of at most numerics' MAX_INT8_DEPTH values */
        for (int64_t k = 0; k < inputs; k++)
            sum += row[k];
        starts[n] = start_of(sum);
        for (int64_t k = done * GROUP; k < whole; k += GROUP, group += GROUP * COLUMNS)
            memcpy(group, row + k, GROUP);
        memcpy(last, row + whole, (size_t)(inputs - whole));
        if (whole < inputs)
            memcpy(group, last, GROUP);
    }
    memcpy(to, starts, sizeof starts);
}

/* Writes the last panel's rows, where it is narrow, over the panel. */
static void fill_narrow(const int8_t *w, int64_t outputs, int64_t inputs, int8_t *panels)
{
    int64_t columns = outputs % COLUMNS, depth = padded_depth(inputs);
    if (!is_narrow(outputs, inputs))
        return;
    int8_t *panel = panels + (panels_of(outputs) - 1) * panel_bytes(inputs) + sizeof(int32_t) * COLUMNS;
    block_value *to = (block_value *)panel;
    for (int64_t n = 0; n < NARROW; n++)
        for (int64_t k = 0; k < depth; k++)
            to[n * depth + k] = n < columns && k < inputs ? w[(outputs - columns + n) * inputs + k] : 0;
}

/* w [outputs, inputs] into panels, their bytes, and the outputs of a panel. */
void sparseq_pack_panels(const int8_t *w, int64_t outputs, int64_t inputs, int8_t *to, int32_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (outputs * inputs >= PARALLEL_WEIGHTS)
    for (int64_t p = 0; p < panels_of(outputs); p++)
        fill_panel(w, outputs, inputs, p, to + p * panel_bytes(inputs));
    fill_narrow(w, outputs, inputs, to);
}
int64_t sparseq_panel_bytes(int64_t outputs, int64_t inputs) { return panels_of(outputs) * panel_bytes(inputs); }
int64_t sparseq_panel_columns(void) { return COLUMNS; }

INLINE int64_t groups_of(int64_t outputs) { return (outputs + BLOCK - 1) / BLOCK; }

/* The block of w from output n and input k on, with zeros past w's ends. Returns whether it holds more than zeros. */
INLINE int read_block(const int8_t *w, int64_t outputs, int64_t inputs, int64_t n, int64_t k, int8_t block[BLOCK][BLOCK])
{
    uint32_t any = 0;
    for (int i = 0; i < BLOCK; i++) {
        uint32_t row = 0;
        if (n + i < outputs && inputs - k >= BLOCK)
            memcpy(&row, w + (n + i) * inputs + k, BLOCK);
        else if (n + i < outputs)
            memcpy(&row, w + (n + i) * inputs + k, (size_t)(inputs - k));
        memcpy(block[i], &row, BLOCK);
        any |= row;
    }
    return any != 0;
}
_Static_assert(BLOCK == sizeof(uint32_t), "a row of a block is read as one word");

/* How many blocks of BLOCK whole rows w [BLOCK][inputs] hold more than zeros, of those that are whole. */
static int32_t count_whole(const int8_t *w, int64_t inputs)
{
    int32_t count = 0;
    for (int64_t k = 0; k + BLOCK <= inputs; k += BLOCK) {
        const unaligned_int *a = (const void *)(w + k), *b = (const void *)(w + inputs + k);
        const unaligned_int *c = (const void *)(w + 2 * inputs + k), *d = (const void *)(w + 3 * inputs + k);
        count += (*a | *b | *c | *d) != 0;
    }
    return count;
}

/* The blocks of w [outputs, inputs] that hold more than zeros: their number. starts [ceil(outputs / BLOCK) + 1] are written
 * as `struct blocks` has them. */
int64_t sparseq_count_blocks(const int8_t *w, int64_t outputs, int64_t inputs, int32_t *starts, int32_t threads)
{
    int64_t groups = groups_of(outputs);
    starts[0] = 0;
#pragma omp parallel for schedule(static) num_threads(threads) if (outputs * inputs >= PARALLEL_WEIGHTS)
    for (int64_t g = 0; g < groups; g++) {
        int8_t block[BLOCK][BLOCK];
        int whole = outputs - g * BLOCK >= BLOCK;
        int32_t count = whole ? count_whole(w + g * BLOCK * inputs, inputs) : 0;
        for (int64_t k = whole ? inputs / BLOCK * BLOCK : 0; k < inputs; k += BLOCK)
            count += read_block(w, outputs, inputs, g * BLOCK, k, block);
        starts[g + 1] = count;
    }
    for (int64_t g = 0; g < groups; g++)
        starts[g + 1] += starts[g];
    return starts[groups];
}

/* These blocks' places, sums and values, as `struct blocks` has them; a value takes sparseq_block_bytes() / the values of a
 * block. */
void sparseq_pack_blocks(const int8_t *w, int64_t outputs, int64_t inputs, const int32_t *starts, uint16_t *places,
                         int32_t *sums, void *values, int32_t threads)
{
#pragma omp parallel for schedule(static) num_threads(threads) if (outputs * inputs >= PARALLEL_WEIGHTS)
    for (int64_t g = 0; g < groups_of(outputs); g++) {
        int32_t at = starts[g], sum[BLOCK] = {0};
        for (int64_t k = 0; k < inputs; k += BLOCK) {
            int8_t block[BLOCK][BLOCK];
            if (!read_block(w, outputs, inputs, g * BLOCK, k, block))
                continue;
            block_value *to = (block_value *)values + (int64_t)at * BLOCK * BLOCK;
            for (int i = 0; i < BLOCK; i++)
                for (int j = 0; j < BLOCK; j++) {
                    to[i * BLOCK + j] = block[i][j];
                    sum[i] += block[i][j];
                }
            places[at++] = (uint16_t)(k / BLOCK);
        }
        for (int i = 0; i < BLOCK; i++)
            sums[g * BLOCK + i] = start_of(sum[i]);
    }
    memset(places + starts[groups_of(outputs)], 0, BLOCKS_PAST * sizeof *places);
}

/* The outputs, and the inputs, of a block; its bytes; and the places after those of all blocks. */
int64_t sparseq_block_size(void) { return BLOCK; }
int64_t sparseq_blocks_past(void) { return BLOCKS_PAST; }
int64_t sparseq_block_bytes(void) { return (int64_t)sizeof(block_value) * BLOCK * BLOCK; }
