/* A BERT encoder in one call: int8 products of inputs that are quantized by row, fp32 for all else.
 *
 * Sequences stand one after the other without padding, and do not need each other. With enough of them each thread takes
 * some through all layers and waits for nobody; with few, all threads share each step of all tokens. */
#if defined(__GNUC__) && !defined(__clang__)
/* With it GCC (12 to 14) gives a tile's sums two registers each, and keeps half of them in memory. */
#pragma GCC optimize("no-tree-coalesce-vars")
#endif

#include <stdlib.h>

#include "attention.h"
#include "blocks.h"
#include "layer_norm.h"
#include "panels.h"
#include "quantize.h"

/* Of OpenMP; its header is not everywhere where its library is. */
int omp_get_thread_num(void);
int omp_get_num_threads(void);

#define TOKENS 128    /* of the sequences that a thread takes at once, if one is not longer */
#define MANY_PARTS 2  /* for each thread: from so many on, parts of different sizes even out */
#define LIMIT 127.0f  /* of a quantized value */

enum activation { NONE, RELU, GELU };

/* y = act(x w^T * scales + bias). The weight is in panels, or in blocks where that is NULL. scale and bias have a whole
 * panel's columns at the end. static_scale: of x; 0 where each row has its own. */
struct linear {
    const int8_t *panels;
    struct blocks blocks;
    const float *scale, *bias;
    int64_t outputs, inputs;
    float static_scale;
    int32_t activation;
};

/* One layer: x = norm(x + out(attention(qkv(x)))), then x = norm(x + down(up(x))). */
struct layer {
    struct linear qkv, out, up, down;
    struct norm after_attention, after_output;
};

struct encoder {
    const struct layer *layers;
    int64_t count, heads, head_size, intermediate;
};

/* The threads that share a step: this one's number and how many they are. */
struct team {
    int number, size;
};

static void wait_for_all(const struct team *team)
{
    if (team->size > 1) {
#pragma omp barrier
    }
}

/* This thread's part of `count`: from *first to before *end. */
static void share(const struct team *team, int64_t count, int64_t *first, int64_t *end)
{
    *first = count * team->number / team->size;
    *end = count * (team->number + 1) / team->size;
}

/* What the tokens of one part need: x's quantized rows, as they are and transposed, their scales, and floats between
 * steps. */
struct room {
    operand *quantized, *transposed;
    float *scales, *wide, *context, *sum, *attention;
};

static int64_t larger_of(int64_t x, int64_t y) { return x > y ? x : y; }

/* The room for `tokens` in `memory`, which may be NULL; *floats is how much it takes. */
static struct room room_in(float *memory, const struct encoder *encoder, int64_t tokens, int64_t longest, int threads,
                           size_t *floats)
{
    int64_t hidden = encoder->heads * encoder->head_size, inputs = larger_of(hidden, encoder->intermediate);
    int64_t sizes[] = {tokens * even(inputs) / 2, parts_of(tokens) * part_size(inputs) / 2, parts_of(tokens) * BLOCK_TOKENS, tokens * larger_of(3 * hidden, encoder->intermediate), tokens * hidden,
                       tokens * hidden, threads * attention_floats(longest, encoder->head_size)};
    float *parts[sizeof sizes / sizeof *sizes];
    *floats = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        parts[i] = memory ? memory + *floats : NULL;
        *floats += (size_t)sizes[i];
    }
    return (struct room){(operand *)parts[0], (operand *)parts[1], parts[2], parts[3], parts[4], parts[5], parts[6]};
}

/* x quantized by row or by the static scale, with zeros up to an even number of columns; transposed too where the weight is
 * in blocks. */
static void quantize(const struct team *team, const float *x, int64_t tokens, const struct linear *by, struct room *room)
{
    int64_t first, end, columns = by->inputs;
    share(team, tokens, &first, &end);
    for (int64_t m = first; m < end; m++) {
        const float *row = x + m * columns;
        operand *to = room->quantized + m * even(columns);
        room->scales[m] = by->static_scale;
        if (by->static_scale > 0.0f)
            quantize_values(row, NULL, columns, 1.0f / by->static_scale, LIMIT, 1, to);
        else
            room->scales[m] = quantize_row(row, NULL, columns, LIMIT, 1, to);
        if (columns & 1)
            to[columns] = 0;
    }
    wait_for_all(team);
    if (by->panels)
        return;
    share(team, parts_of(tokens), &first, &end);
    for (int64_t p = first; p < end; p++) {
        int64_t m = p * BLOCK_TOKENS, count = tokens - m < BLOCK_TOKENS ? tokens - m : BLOCK_TOKENS;
        transpose_pairs(room->quantized + m * even(columns), count, even(columns), room->transposed + p * part_size(columns));
    }
    wait_for_all(team);
}

/* In place, of whole vectors. */
static inline void activate(float *x, int64_t count, int activation)
{
    if (activation == NONE)
        return;
    for (int64_t i = 0; i < count; i += WIDTH)
        store(x + i, activation == GELU ? gelu(load(x + i)) : relu(load(x + i)));
}

/* `rows` of a tile's sums, scaled, to y; `columns` of the panel's are there. */
static void scale_tile(const int32_t *sums, int64_t rows, const float *row_scales, const float *scale, const float *bias,
                       int activation, int64_t columns, float *y, int64_t stride)
{
    for (int64_t r = 0; r < rows; r++) {
        float found[COLUMNS];
        for (int n = 0; n < COLUMNS; n++)
            found[n] = (float)sums[r * COLUMNS + n] * row_scales[r] * scale[n] + bias[n];
        activate(found, COLUMNS, activation);
        memcpy(y + r * stride, found, sizeof(float) * (size_t)columns);
    }
}

/* `multiply` by blocks. */
static void multiply_blocks(const struct team *team, const struct linear *by, int64_t tokens, const struct room *room,
                            float *y)
{
    int64_t first, end;
    share(team, (by->outputs + BLOCK - 1) / BLOCK, &first, &end);
    for (int64_t p = 0; p < parts_of(tokens); p++)
        for (int64_t g = first; g < end; g++) {
            int64_t m = p * BLOCK_TOKENS, n = g * BLOCK, outputs = by->outputs - n < BLOCK ? by->outputs - n : BLOCK;
            int32_t sums[BLOCK * BLOCK_TOKENS];
            float found[BLOCK * BLOCK_TOKENS];
            block_tile(room->transposed + p * part_size(by->inputs), &by->blocks, g, sums);
            for (int i = 0; i < BLOCK; i++)
                for (int t = 0; t < BLOCK_TOKENS; t++)
                    found[i * BLOCK_TOKENS + t] =
                        (float)sums[i * BLOCK_TOKENS + t] * room->scales[m + t] * by->scale[n + i] + by->bias[n + i];
            activate(found, BLOCK * BLOCK_TOKENS, by->activation);
            store_transposed(found, tokens - m < BLOCK_TOKENS ? tokens - m : BLOCK_TOKENS, outputs,
                             y + m * by->outputs + n, by->outputs);
        }
    wait_for_all(team);
}

/* y [tokens, outputs] of the quantized rows. */
static void multiply(const struct team *team, const struct linear *by, int64_t tokens, const struct room *room, float *y)
{
    int64_t first, end, depth = even(by->inputs);
    if (!by->panels) {
        multiply_blocks(team, by, tokens, room, y);
        return;
    }
    share(team, panels_of(by->outputs), &first, &end);
    for (int64_t p = first; p < end; p++) {
        int64_t n = p * COLUMNS, columns = by->outputs - n < COLUMNS ? by->outputs - n : COLUMNS;
        for (int64_t m = 0; m < tokens; m += TILE_ROWS) {
            int64_t rows = tokens - m < TILE_ROWS ? tokens - m : TILE_ROWS;
            int32_t sums[TILE_ROWS * COLUMNS];
            tile_of_rows(rows, room->quantized + m * depth, depth, by->panels + p * panel_bytes(by->inputs), depth, sums);
            scale_tile(sums, rows, room->scales + m, by->scale + n, by->bias + n, by->activation, columns,
                       y + m * by->outputs + n, by->outputs);
        }
    }
    wait_for_all(team);
}

static void add_norm(const struct team *team, float *x, int64_t tokens, int64_t columns, const struct norm *norm,
                     const struct room *room)
{
    int64_t first, end;
    share(team, tokens, &first, &end);
    for (int64_t m = first; m < end; m++)
        layer_norm_row(x + m * columns, room->sum + m * columns, columns, norm, x + m * columns);
    wait_for_all(team);
}

/* The context [tokens, hidden] of room->wide [tokens, 3 hidden]. starts: of the sequences, the first of them 0. */
static void attention(const struct team *team, const struct encoder *encoder, const int64_t *starts, int64_t sequences,
                      int64_t longest, const struct room *room)
{
    int64_t first, end, heads = encoder->heads, size = encoder->head_size, hidden = heads * size;
    float scale = 1.0f / sqrtf((float)size);
    float *memory = room->attention + team->number * attention_floats(longest, size);
    share(team, sequences * heads, &first, &end);
    for (int64_t i = first; i < end; i++) {
        int64_t start = starts[i / heads] - starts[0], tokens = starts[i / heads + 1] - starts[i / heads];
        const float *q = room->wide + start * 3 * hidden + i % heads * size;
        attend(q, q + hidden, q + 2 * hidden, 3 * hidden, tokens, size, scale,
               room->context + start * hidden + i % heads * size, hidden, memory);
    }
    wait_for_all(team);
}

/* All layers of these sequences. x [tokens, hidden] in place; after each layer a copy to states, where it is not NULL, which
 * are `stride` floats apart. */
static void encode(const struct team *team, const struct encoder *encoder, float *x, const int64_t *starts,
                   int64_t sequences, int64_t longest, struct room *room, float *states, int64_t stride)
{
    int64_t tokens = starts[sequences] - starts[0], hidden = encoder->heads * encoder->head_size, first, end;
    for (int64_t l = 0; l < encoder->count; l++) {
        const struct layer *layer = encoder->layers + l;
        quantize(team, x, tokens, &layer->qkv, room);
        multiply(team, &layer->qkv, tokens, room, room->wide);
        attention(team, encoder, starts, sequences, longest, room);
        quantize(team, room->context, tokens, &layer->out, room);
        multiply(team, &layer->out, tokens, room, room->sum);
        add_norm(team, x, tokens, hidden, &layer->after_attention, room);
        quantize(team, x, tokens, &layer->up, room);
        multiply(team, &layer->up, tokens, room, room->wide);
        quantize(team, room->wide, tokens, &layer->down, room);
        multiply(team, &layer->down, tokens, room, room->sum);
        add_norm(team, x, tokens, hidden, &layer->after_output, room);
        if (states) {
            share(team, tokens * hidden, &first, &end);
            memcpy(states + l * stride + first, x + first, sizeof(float) * (size_t)(end - first));
        }
    }
}

/* The number of parts of whole sequences, none of more than `most` tokens unless it is one sequence; ends [sequences]: of
 * each part the sequence after its last. */
static int64_t part_sequences(const int64_t *starts, int64_t sequences, int64_t most, int64_t *ends)
{
    int64_t parts = 0, first = 0;
    for (int64_t s = 1; s <= sequences; s++)
        if (s == sequences || starts[s + 1] - starts[first] > most) {
            ends[parts++] = s;
            first = s;
        }
    return parts;
}

/* x [tokens, hidden] in place. starts [sequences + 1]: where each sequence begins, and the number of tokens. states:
 * [layers, tokens, hidden], or NULL. Returns 0, or 1 where there is no memory. */
int sparseq_encode(const struct encoder *encoder, float *x, const int64_t *starts, int64_t sequences, float *states,
                   int32_t threads)
{
    int64_t tokens = starts[sequences], hidden = encoder->heads * encoder->head_size, longest = 0;
    if (!tokens)
        return 0;
    for (int64_t s = 0; s < sequences; s++)
        longest = starts[s + 1] - starts[s] > longest ? starts[s + 1] - starts[s] : longest;
    int64_t *ends = malloc(sizeof(int64_t) * (size_t)sequences);
    if (!ends)
        return 1;
    int64_t each = (tokens + threads - 1) / threads, most = each < TOKENS ? each : TOKENS;
    int64_t parts = part_sequences(starts, sequences, most > longest ? most : longest, ends);
    int apart = parts % threads == 0 || parts >= MANY_PARTS * threads, failed = 0;
    int64_t largest = apart ? (most > longest ? most : longest) : tokens;
    size_t floats;
    room_in(NULL, encoder, largest, longest, apart ? 1 : threads, &floats);
    float *memory = malloc(sizeof(float) * floats * (size_t)(apart ? threads : 1));
    if (memory && apart) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
        for (int64_t p = 0; p < parts; p++) {
            int64_t first = p ? ends[p - 1] : 0;
            size_t size;
            float *own = memory + floats * (size_t)omp_get_thread_num();
            struct room room = room_in(own, encoder, largest, longest, 1, &size);
            encode(&(struct team){0, 1}, encoder, x + starts[first] * hidden, starts + first, ends[p] - first, longest, &room,
                   states ? states + starts[first] * hidden : NULL, tokens * hidden);
        }
    } else if (memory) {
        struct room room = room_in(memory, encoder, tokens, longest, threads, &floats);
#pragma omp parallel num_threads(threads)
        encode(&(struct team){omp_get_thread_num(), omp_get_num_threads()}, encoder, x, starts, sequences, longest, &room,
               states, tokens * hidden);
    } else
        failed = 1;
    free(memory);
    free(ends);
    return failed;
}

/* The blocks of w [outputs, inputs] that hold more than zeros: their number. They are written as `struct blocks` has
 * them, where the last three are not NULL. */
int64_t sparseq_pack_blocks(const int8_t *w, int64_t outputs, int64_t inputs, int32_t *starts, int32_t *first_inputs,
                            int16_t *values)
{
    int64_t count = 0;
    for (int64_t n = 0; n < outputs; n += BLOCK) {
        if (starts)
            starts[n / BLOCK] = (int32_t)count;
        for (int64_t k = 0; k < inputs; k += BLOCK) {
            int16_t block[BLOCK * BLOCK] = {0};
            int any = 0;
            for (int64_t i = 0; i < BLOCK && n + i < outputs; i++)
                for (int64_t j = 0; j < BLOCK && k + j < inputs; j++) {
                    int8_t value = w[(n + i) * inputs + k + j];
                    block[j / 2 * 2 * BLOCK + 2 * i + j % 2] = value;
                    any |= value;
                }
            if (!any)
                continue;
            if (values) {
                first_inputs[count] = (int32_t)k;
                memcpy(values + count * BLOCK * BLOCK, block, sizeof block);
            }
            count++;
        }
    }
    if (starts)
        starts[(outputs + BLOCK - 1) / BLOCK] = (int32_t)count;
    return count;
}

/* The bytes of a weight [outputs, inputs] in panels. */
int64_t sparseq_panel_bytes(int64_t outputs, int64_t inputs) { return panels_of(outputs) * panel_bytes(inputs); }

/* The outputs of a panel. */
int64_t sparseq_panel_columns(void) { return COLUMNS; }

/* The outputs, and the inputs, of a block. */
int64_t sparseq_block_size(void) { return BLOCK; }

/* w [outputs, inputs] into panels. */
void sparseq_pack_panels(const int8_t *w, int64_t outputs, int64_t inputs, int8_t *to)
{
    for (int64_t p = 0; p < panels_of(outputs); p++)
        for (int64_t k = 0; k < even(inputs); k += 2)
            for (int64_t n = p * COLUMNS; n < (p + 1) * COLUMNS; n++)
                for (int64_t i = k; i < k + 2; i++)
                    *to++ = n < outputs && i < inputs ? w[n * inputs + i] : 0;
}
